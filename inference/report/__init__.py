"""One HTML page of a run: its CV, its learning curves, where it is good and bad, and what its mistakes look like.

results.py    what the run's files say, read and checked
facts.py      what was trained, with what; of runs that answer together, where they differ
tables.py     scores by fold, view, make and car
charts.py     curves and distributions, as inline SVG
mistakes.py   wrong pixels: which, how many, and the windows that hold most of them
gallery.py    the worst, the usual and the best images, with their mistakes
page.py       all of it through page.html.j2 and page.css
"""
