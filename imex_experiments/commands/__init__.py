"""Commands: one module each, whose `main` reads sys.argv; train.py and scripts/ call them."""
