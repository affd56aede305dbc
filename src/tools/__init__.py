"""What runs the study: settings, stages, notebooks, tasks side by side, and the checks of what came out."""

import sys

# jsonschema, which checks notebooks, would compile a grammar of addresses that none needs: two seconds a stage
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
