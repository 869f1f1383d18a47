"""`make soak`: everything at once for minutes, while one thing after another is broken; and whether anybody got a wrong answer."""
