"""An example plugin. Importing it loads no framework: `build` is a string that is resolved when needed."""

from mdpd_plugins.registry import BackboneSpec, hookimpl


@hookimpl
def register_backbones(register):
    register(
        BackboneSpec(
            "example/small-vit",
            build="mdpd_example_plugin.model:build",
            family="vit",
            summary="a small vision transformer written by hand, without pretrained weights",
        )
    )
