"""The page as a Hugging Face Space."""

from immersivedepth.app.serving import Demo
from immersivedepth.config import compose

# A Space serves port 7860 to everybody, and its disk is small: results go sooner.
SETTINGS = ["mode=demo", "app.host=0.0.0.0", "app.port=7860", "app.keep_minutes=20", "app.upload_mb=32"]

if __name__ == "__main__":
    with Demo.of(compose("config", SETTINGS)) as page:
        page.wait()
