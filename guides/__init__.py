"""The guides as a site: what MkDocs makes of docs/, with the pages that are read out of the code (``make docs``)."""
