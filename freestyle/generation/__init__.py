"""Query sets from photos: low resolution, sketches, art; resumable, at any scale."""
