"""CSS of the page."""

from __future__ import annotations

from edgezo.pictures.theme import DARK, FONT, LIGHT, MONO, PARTS, SERIES, chart_rules, variables

_RULES = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;color-scheme:light dark}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 FONT;
  font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:1180px;margin:0 auto;padding:40px 28px 64px}
h1{font-size:clamp(22px,3.4vw,32px);line-height:1.2;letter-spacing:-.018em;margin:4px 0 6px;
  font-weight:680;text-wrap:balance}
h2{font-size:19px;letter-spacing:-.01em;margin:44px 0 14px;font-weight:650}
h3{font-size:14px;margin:0 0 2px;font-weight:620}
p{margin:0 0 8px}
a{color:var(--s0)}
.eyebrow{color:var(--muted);font-size:13px;font-weight:550}
.lead{color:var(--muted);max-width:75ch}
.badge{display:inline-block;padding:1px 9px;border-radius:99px;font-size:12.5px;font-weight:600;
  border:1px solid currentColor;margin-left:8px}
.good{color:var(--good)}.bad{color:var(--bad)}.warned{color:var(--warn)}.muted{color:var(--muted)}
.grid{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,310px),1fr))}
.cards{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,235px),1fr));
  margin:26px 0 16px}
.panel{background:var(--panel);border:1px solid var(--line);border-radius:12px;padding:16px 18px;
  min-width:0;margin:0}
.wide{grid-column:span 2}
.card .label{font-size:13px;color:var(--muted);font-weight:550}
.card .label::first-letter{text-transform:uppercase}
.card .value{font-size:25px;line-height:1.25;letter-spacing:-.02em;font-weight:660;margin:3px 0 2px}
.card .note{font-size:13px;color:var(--muted)}
.card .gauge{margin-top:9px}
figure{display:flex;flex-direction:column}
figcaption{margin-bottom:6px;min-height:41px}
figcaption .sub,.sub{font-size:12.5px;color:var(--muted)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:12.5px;color:var(--muted)}
.chip{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px;
  vertical-align:-1px}
.chart{display:block;width:100%;height:auto}
.bar{height:30px}
.narrow{display:none}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);
  vertical-align:top}
tr:last-child>th,tr:last-child>td{border-bottom:0}
th{font-weight:550;color:var(--muted)}
.names th{white-space:nowrap;width:1%;padding-right:20px;overflow-wrap:normal}
td.n,th.n{text-align:right;white-space:nowrap}
td:last-child,th:last-child{padding-right:0}
.below{margin-top:16px}
.names.loose th{white-space:normal;width:58%}
.parts{margin-top:8px}
.part{white-space:nowrap}
.what{color:var(--muted);width:60%;padding-left:24px}
.scroll{overflow-x:auto}
.compare{min-width:840px}
.compare td:first-child{font-weight:600}
@media screen{.compare td,.compare th{white-space:nowrap}
  .compare td:nth-child(-n+3){white-space:normal;overflow-wrap:anywhere;min-width:11em}}
code,pre,.mono{font-family:MONO;font-size:12.5px}
pre{background:var(--code);border:1px solid var(--line);border-radius:8px;padding:9px 12px;
  margin:2px 0 12px;white-space:pre-wrap;overflow-wrap:anywhere}
details{margin-top:10px}
summary{cursor:pointer;font-weight:600;font-size:14px}
.notes{margin:0;padding:12px 16px 12px 32px;background:var(--warn-bg);border:1px solid var(--line);
  border-radius:12px;font-size:14px}
.rows{list-style:none;margin:0;padding:0}
.rows li{padding:11px 0;border-bottom:1px solid var(--line)}
.rows li:last-child{border-bottom:0;padding-bottom:0}
.rows li:first-child{padding-top:4px}
.rows .facts{font-size:12.5px;color:var(--muted);display:flex;flex-wrap:wrap;gap:0 14px}
.rows .text{white-space:pre-wrap;max-width:95ch}
.answer{font-weight:600}
.sample{display:grid;gap:4px 18px;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr))}
.sample{margin-top:8px}
.sample .text{font-size:14px}
.run header{padding-top:20px}
.run header h2{margin:4px 0 2px;font-size:23px}
.run{border-top:2px solid var(--line);margin-top:56px}
footer{margin-top:48px;color:var(--muted);font-size:13px}
@media (max-width:720px){
  main{padding:24px 16px 40px}
  .wide{grid-column:auto}
  .wider{display:none}.narrow{display:block}
  .panel{padding:14px}
  figcaption{min-height:0}
  .what{display:none}
  .names th{white-space:normal;width:34%;padding-right:12px}
}
@page{margin:13mm}
@media print{
  body{background:#fff;font-size:9pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
  main{max-width:none;padding:0}
  h1{font-size:17pt}h2{font-size:12pt;margin:16pt 0 7pt}h3{font-size:9.5pt}
  .panel,figure,.card,.rows li,.sample,tr,pre{break-inside:avoid}
  h2,h3,.facts{break-after:avoid}
  p,.text{orphans:3;widows:3}
  .cards{grid-template-columns:repeat(4,1fr);gap:8pt;margin:12pt 0 8pt}
  .card .value{font-size:13pt;white-space:nowrap}
  .card .note,.card .label,figcaption .sub,.sub,.legend,.rows .facts{font-size:7.5pt}
  .grid{gap:8pt;grid-template-columns:repeat(3,minmax(0,1fr))}
  .wide{grid-column:span 3}.grid:has(table)>.wide{grid-column:span 2}
  .matrices{grid-template-columns:repeat(2,minmax(0,1fr))}
  .wider{display:block}.narrow{display:none}
  .panel{padding:9pt 11pt;border-radius:6pt}
  figcaption{min-height:0}
  table{font-size:8pt}th,td{padding:2.5pt 8pt 2.5pt 0}
  .rows li{padding:5pt 0}
  .rows .text,.sample .text,.notes{font-size:8.5pt}
  code,pre,.mono{font-size:7.5pt}
  pre{padding:5pt 8pt;margin:1pt 0 6pt}
  details:not([open]){display:none}
  .run{break-before:page;border-top:0;margin-top:0}
  .run header{padding-top:0}
  .scroll{overflow:visible}
  .compare{min-width:0;font-size:7.5pt}
  .compare th,.compare td{padding-right:6pt;overflow-wrap:normal}
  .compare td:nth-child(-n+3){overflow-wrap:anywhere}
  footer{margin-top:14pt}
}
"""


def page_css() -> str:
    """Colours of both themes, type and layout; print is always light."""
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}\n"
    rules = _RULES.replace("FONT", FONT).replace("MONO", MONO)
    return f":root{{{variables(LIGHT)}}}\n{dark}{rules}{_chips()}{chart_rules()}"


def _chips() -> str:
    names = [*(f"s{number}" for number in range(SERIES)), *PARTS]
    return "".join(f".c-{name}{{background:var(--{name})}}\n" for name in names)
