import pathlib
import sys

# For `boot.harness`: the guests and the S3 server of tests/boot.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
