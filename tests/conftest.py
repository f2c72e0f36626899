from __future__ import annotations

import pytest

pytest.register_assert_rewrite("worchflow_core.testing.contracts")
