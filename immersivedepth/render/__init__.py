"""Novel views: cameras, paths for them, and scenes that can be looked at from anywhere."""
