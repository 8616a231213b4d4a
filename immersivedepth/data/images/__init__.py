"""Pictures and maps, to and from files; the only place that opens image files.

Reading
- What a file is, is told by its first bytes, never by its name: PNG, JPEG, TIFF, WebP, BMP, Radiance HDR, OpenEXR,
  NPY, PFM, and for maps also the .dpt files of 360MonoDepth.
- The size is read from the header and held against `max_size` before anything is decoded.
- A file that is cut short or fails a checksum is refused; nothing is ever filled in.
- Pictures come out upright (EXIF) as RGB. 8 bits per channel stay uint8; 16 bits become float32 = value / 65535.
- HDR, EXR, PFM and floating TIFF hold linear light, which networks do not know: it is tone-mapped to 0..1, or handed
  out as it is with `linear=True`. Floating NPY holds display values and must lie in 0..1.
- Transparent pictures are laid over black, and what is less than half opaque is False in the mask.
- NaN in a picture is an error; positive infinity (the sun in a half-float file) counts as its brightest finite pixel.
- Maps keep every number: no tone map, no clipping, NaN and infinity included.
Writing goes through `files.atomic`: a file is there whole, or not at all.
"""

from .display import tone_map
from .doors import MAX_SIZE, SUFFIXES, check_file, show
from .metadata import read_gpano
from .reading import Picture, read_image, read_map, read_vectors
from .writing import write_dpt, write_exr, write_jpeg, write_map_png, write_npy, write_pfm, write_png

__all__ = [
    "MAX_SIZE",
    "SUFFIXES",
    "Picture",
    "check_file",
    "read_gpano",
    "read_image",
    "read_map",
    "read_vectors",
    "show",
    "tone_map",
    "write_dpt",
    "write_exr",
    "write_jpeg",
    "write_map_png",
    "write_npy",
    "write_pfm",
    "write_png",
]
