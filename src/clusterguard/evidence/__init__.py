"""Evidence of drills that is handed over: what a bundle holds, how it is signed, checked, compared and shown."""
