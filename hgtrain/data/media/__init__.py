"""Image files, videos, and drawing into them."""
