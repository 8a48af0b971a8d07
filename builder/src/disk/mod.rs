//! Disk images: partition tables, layout, image files, bmaps. Knows byte ranges, no filesystem.
