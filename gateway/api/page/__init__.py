"""`/`: a page that shows the gateway at work. It calls the public API with the user's own key, as any client does.

site        the page's files, and their Content-Security-Policy
live        the endpoint of the live figures, and its access control
figures     a time series of the last ten minutes
snapshot    the metrics at one moment, and their difference between two
quantile    a quantile of a histogram
static/     HTML, CSS and ES modules as the browser reads them: there is no build step
"""
