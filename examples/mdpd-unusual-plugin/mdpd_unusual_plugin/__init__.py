"""An example plugin: a network unlike any zoo's, which the general adapter still understands."""

from mdpd_plugins.registry import BackboneSpec, hookimpl


@hookimpl
def register_backbones(register):
    register(
        BackboneSpec(
            "unusual/loom",
            build="mdpd_unusual_plugin.model:build",
            family="loom",
            summary="unusual names, a norm class of its own, blocks and model with extra outputs",
            adapter="mdpd_unusual_plugin.model:LoomAdapter",
            small="mdpd_unusual_plugin.model:small",
        )
    )
