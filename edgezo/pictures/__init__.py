"""Charts as SVG text, drawn with the standard library alone.

Knows numbers and labels, and no run. Colours are classes, to which `theme` gives light and dark
values; so a chart in a page follows the page, and a chart in a file of its own has them inside.
"""
