"""What compiles and runs the engines' programs."""

import sys
from typing import Any, cast

# OpenVINO tells its makers of every import and conversion, but not without this package.
cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
