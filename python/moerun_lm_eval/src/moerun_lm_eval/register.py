"""Makes `lm_eval --model moerun` known, where the package is installed.

lm-eval has a fixed list of models and asks no entry points. So a start-up file (moerun_lm_eval.pth) imports this module whenever Python
starts; it waits for the import of `lm_eval.models` and adds the name then. Nothing of lm-eval or of this package is loaded before.
"""
import importlib.util
import sys

MODELS, NAME, TARGET = "lm_eval.models", "moerun", "moerun_lm_eval.model:Moerun"


def register():
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


class _Finder:
    """Finds lm_eval.models as the others would, with a loader that registers afterwards."""

    def find_spec(self, name, path=None, target=None):
        if name != MODELS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                register()

            spec.loader.exec_module = exec_module
        return spec


if MODELS not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
