"""One HTML page of a run: its CV, its learning curves, its strengths and weaknesses, and pictures of its mistakes.

page.py           the list of the sections; each has a template in sections/, in page.html.j2 with page.css
results.py        what the files of the run say, read and checked
facts.py          what was trained and how; for runs that predict together, where they differ
tables.py         numbers: a summary, and scores by fold, view, make and car
charts.py         curves and distributions; scales.py has their axes, svg.py makes them part of the page
mistakes.py       wrong pixels: which, how many, and the windows that contain most of them
suspects.py       labels that may be wrong
gallery.py        the worst, typical and best images with their mistakes
submission.py     facts about the submission file
contact_sheet.py  the test photos that the networks are least and most sure of
pictures.py       photos, overlays and outlines as part of the page
"""
