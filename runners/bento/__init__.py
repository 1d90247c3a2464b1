"""The runners as BentoML services: their processes, transport, start and end.

The one room that touches the inside of BentoML, circus and uvicorn."""
