"""BackboneSpec refuses what cannot work, and says what would."""

import pytest

from mdpd_plugins.registry import (
    BackboneSpec,
    BackboneSpecError,
    MissingDependencyError,
    PluginError,
    Registered,
    closest,
    resolve,
)


def test_a_spec_fills_in_its_zoo_and_takes_any_iterable_of_requirements():
    spec = BackboneSpec("acme/tiny", build="acme.models:build", requires=["json"])
    assert (spec.zoo, spec.modality, spec.adapter, spec.requires) == ("acme", "image", None, ("json",))
    assert hash(spec) == hash(BackboneSpec("acme/tiny", build="acme.models:build", requires=("json",)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "tiny"}, "'<zoo>/<model>'"),
        ({"name": "acme/"}, "'<zoo>/<model>'"),
        ({"name": "acme//tiny"}, "'<zoo>/<model>'"),
        ({"name": "acme/ti ny"}, "'<zoo>/<model>'"),
        ({"name": 3}, "'name' must be a string, got int 3"),
        ({"build": "acme.models"}, "'package.module:attribute'"),
        ({"build": "acme models:build"}, "'package.module:attribute'"),
        ({"build": resolve}, "name the function instead of passing it"),
        ({"build": None}, "'build' must be a string, got NoneType"),
        ({"adapter": Registered}, "'adapter' must be a string"),
        ({"adapter": "Adapter"}, "'package.module:attribute'"),
        ({"zoo": "other"}, "belongs to zoo 'acme'"),
        ({"modality": "images"}, "did you mean 'image'"),
        ({"requires": "transformers"}, "a tuple of import names"),
        ({"requires": ("open-clip",)}, "not the import name"),
        ({"requires": 5}, "a tuple of import names"),
        ({"summary": b"bytes"}, "'summary' must be a string"),
    ],
)
def test_a_field_that_cannot_work_is_refused_with_its_fix(fields, message):
    with pytest.raises(BackboneSpecError) as error:
        BackboneSpec(**{"name": "acme/tiny", "build": "acme.models:build", **fields})
    assert message in str(error.value)


def test_resolve_imports_what_a_reference_names():
    assert resolve("mdpd_plugins.registry:BackboneSpec.__name__") == "BackboneSpec"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("json", "not of the form"),
        ("no_such_package.module:build", "no module 'no_such_package'"),
        ("json.no_such_module:build", "no module 'json.no_such_module'"),
        ("json:lods", "did you mean 'loads'"),
    ],
)
def test_resolve_says_what_is_wrong_with_a_reference(reference, message):
    with pytest.raises(PluginError, match=message):
        resolve(reference)


def test_resolve_tells_a_missing_dependency_from_a_wrong_reference(tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match="'no_such_dependency', which is not installed"):
        resolve("needs_something:build")


def test_a_requirement_that_is_not_installed_is_named_before_anything_is_imported():
    spec = BackboneSpec("acme/tiny", build="no_such_package:build", requires=("json", "no_such_package"))
    registered = Registered(spec, "acme", "acme-models")
    assert registered.missing() == ("no_such_package",)
    with pytest.raises(MissingDependencyError, match="pip install no_such_package"):
        registered.load_build()


def test_the_extra_of_a_zoo_is_the_command_to_run():
    spec = BackboneSpec("open_clip/x", build="no_such_package:build", requires=("no_such_package",))
    with pytest.raises(MissingDependencyError, match=r"pip install 'mdpd-plugins\[open_clip\]'"):
        Registered(spec, "open_clip", "mdpd-plugins").load_build()


def test_load_adapter_is_none_where_the_general_adapter_serves():
    assert Registered(BackboneSpec("acme/tiny", build="json:loads"), "acme").load_adapter() is None


def test_closest_ignores_case_and_lists_a_few_when_nothing_is_near():
    assert closest("vit-b-16", ["ViT-B-16", "RN50"]) == "did you mean 'ViT-B-16'?"
    assert closest("zzz", ["b", "a"]) == "known: a, b"
    assert closest("zzz", []) == "none is known"
