"""`/`: a page that shows the gateway at work. It speaks the public API with its reader's own key, as any client does.

site        the page's files, and the policy that keeps everything else out
live        its live figures, and who may see them
figures     points of the last ten minutes
snapshot    what they are made of: the metrics at two moments
quantile    of what a histogram counted
static/     HTML, CSS and ES modules as the browser reads them: there is no build step
"""
