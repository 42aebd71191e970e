"""BackboneSpec refuses what cannot work, and says what would."""

import dataclasses

import pytest

from mdpd_plugins.registry import (
    BackboneSpec,
    BackboneSpecError,
    EnvironmentReport,
    Finding,
    MissingDependencyError,
    PluginError,
    Register,
    Registered,
    RegisteredSource,
    SourceSpec,
    UnavailableZoo,
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


@pytest.mark.parametrize("reference", ["json", "no_such_package.module:build", "json:lods"])
def test_resolve_says_what_a_reference_is_for_if_told(reference):
    with pytest.raises(PluginError) as plain:
        resolve(reference)
    with pytest.raises(PluginError) as told:
        resolve(reference, purpose="the adapter of 'acme/tiny'")
    start = f"{reference!r} for the adapter of 'acme/tiny'"
    assert str(told.value) == str(plain.value).replace(repr(reference), start, 1)


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


def test_without_an_extra_of_that_name_the_packages_are_named():
    spec = BackboneSpec("acme/x", build="no_such_package:build", requires=("no_such_package", "no_other"))
    with pytest.raises(MissingDependencyError, match=r"run: pip install no_such_package no_other$"):
        Registered(spec, "acme", "mdpd-plugins").load_build()


SPEC, SOURCE = BackboneSpec("acme/tiny", build="json:loads"), SourceSpec("lines", open="json:loads")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (SPEC, "name"),
        (SOURCE, "name"),
        (Registered(SPEC, "acme"), "spec"),
        (RegisteredSource(SOURCE, "acme"), "spec"),
        (UnavailableZoo("acme", "no reason", "none"), "zoo"),
        (Finding("ok", "torch", "is there"), "level"),
    ],
)
def test_what_is_in_the_catalogue_or_a_report_cannot_be_changed(value, field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)
    assert hash(value) == hash(dataclasses.replace(value)) and value == dataclasses.replace(value)


def test_small_options_are_asked_for_by_name_or_are_none():
    assert Registered(SPEC, "acme").small_options() == {"": {}}
    named = BackboneSpec("acme/tiny", build="json:loads", small="json:dumps")
    assert Registered(named, "acme").small_options() == '"acme/tiny"'


def test_a_report_asks_for_imports_unless_told_otherwise():
    assert EnvironmentReport().try_imports is True


@pytest.mark.parametrize("field", ["zoo", "reason", "fix"])
@pytest.mark.parametrize("value", ["", 3, None])
def test_an_unavailable_zoo_has_a_name_a_reason_and_a_fix(field, value):
    register = Register("acme", "register_backbones", BackboneSpec)
    given = {"zoo": "acme", "reason": "libacme is not installed", "fix": "pip install libacme", field: value}
    with pytest.raises(PluginError, match=f"{field} must be a non-empty string, got {value!r}"):
        register.unavailable(given.pop("zoo"), **given)
    assert register.close() == ([], [])


def test_what_is_no_spec_is_shown_in_short():
    register = Register("acme", "register_backbones", BackboneSpec)
    with pytest.raises(PluginError) as error:
        register("x" * 100)
    assert f"got str '{'x' * 80}'; write register(BackboneSpec('zoo/model'" in str(error.value)


def test_load_adapter_is_none_where_the_general_adapter_serves():
    assert Registered(BackboneSpec("acme/tiny", build="json:loads"), "acme").load_adapter() is None


def test_closest_ignores_case_and_lists_a_few_when_nothing_is_near():
    assert closest("vit-b-16", ["ViT-B-16", "RN50"]) == "did you mean 'ViT-B-16'?"
    assert closest("zzz", ["b", "a"]) == "known: a, b"
    assert closest("zzz", []) == "none is known"


def test_closest_names_three_at_most_and_lists_eight():
    assert closest("vit", ["vit1", "vit2", "vit3", "vit4"]).count("vit") == 3
    names = list("abcdefghi")
    assert closest("zzz", names[:8]) == "known: a, b, c, d, e, f, g, h"
    assert closest("zzz", names) == "known: a, b, c, d, e, f, g, h, ..."
