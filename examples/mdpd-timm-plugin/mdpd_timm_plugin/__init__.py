"""An example plugin: models of timm, of several families, with one `build` for all of them."""

from mdpd_plugins.registry import BackboneSpec, hookimpl

FAMILIES = {
    "vit_small_patch16_224": "vit",
    "deit3_small_patch16_224": "deit",
    "swin_tiny_patch4_window7_224": "swin",
    "convnext_tiny": "convnext",
    "resnet50": "resnet",
    "regnetx_008": "regnet",
}


@hookimpl
def register_backbones(register):
    for name, family in FAMILIES.items():
        register(
            BackboneSpec(
                f"timm/{name}",
                build="mdpd_timm_plugin.model:build",
                family=family,
                summary="timm's own model and weights",
                requires=("timm",),
                adapter="mdpd_plugins.zoos.timm.adapter:TimmAdapter",
                small="mdpd_timm_plugin.model:small",
            )
        )
