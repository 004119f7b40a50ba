"""One HTML page of a run: its CV, its learning curves, its strengths and weaknesses, and pictures of its mistakes.

results.py    what the files of the run say, read and checked
facts.py      what was trained and how; for runs that predict together, where they differ
tables.py     scores by fold, view, make and car
charts.py     curves and distributions as inline SVG
mistakes.py   wrong pixels: which, how many, and the windows that contain most of them
suspects.py   labels that may be wrong
gallery.py    the worst, typical and best images with their mistakes
page.py       all of it through page.html.j2 and page.css
"""
