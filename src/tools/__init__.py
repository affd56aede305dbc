"""What runs the study: settings, stages, notebooks, tasks side by side, and the checks of what came out."""
