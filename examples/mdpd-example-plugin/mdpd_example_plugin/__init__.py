"""An example plugin with every hook. Importing it loads no framework: strings name what is imported when needed."""

from mdpd_plugins.registry import BackboneSpec, SourceSpec, hookimpl, resolve


@hookimpl
def register_backbones(register):
    register(
        BackboneSpec(
            "example/small-vit",
            build="mdpd_example_plugin.model:build",
            family="vit",
            summary="a small vision transformer written by hand, without pretrained weights",
            adapter="mdpd_example_plugin.adapter:SmallViTAdapter",
            small="mdpd_example_plugin.model:small",
            load_with="mdpd_example_plugin.model.load(FOLDER)",
        )
    )


@hookimpl
def register_sources(register):
    register(SourceSpec("stripes", open="mdpd_example_plugin.stripes:open_stripes", summary="pictures of stripes"))


@hookimpl
def adapt_backbone(model):
    # By the name of its module: a live model of this package has loaded it, and others need not.
    if type(model).__module__ == "mdpd_example_plugin.model":
        return resolve("mdpd_example_plugin.adapter:SmallViTAdapter")(model)
    return None


@hookimpl
def load_export(folder, record):
    return resolve("mdpd_example_plugin.exported:load")(folder, record) if record.zoo == "example" else None


@hookimpl
def check_environment(report):
    report.ok("example", "installed; it needs nothing but PyTorch")
