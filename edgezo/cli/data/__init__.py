"""`edgezo data`: what data files hold."""
