"""The playground: the page at `/`, on which everything can be tried and seen.

web/     its source: TypeScript and Preact, built by Vite with `make playground`
static/  the built files, committed: neither a server nor a wheel needs npm
page.py  serves them
"""
