"""The catalogue in one process, with plugin packages put in front of the installed ones."""

import json
import sys

import pytest
from packages import write_package, write_plugin

from mdpd_plugins.registry import (
    ConfigError,
    DuplicateBackboneError,
    EnvironmentReport,
    PluginError,
    UnknownBackboneError,
    load_catalogue,
)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages; `load_catalogue` is back to normal afterwards."""
    monkeypatch.delenv("MDPD_STRICT_PLUGINS", raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    monkeypatch.undo()
    for module in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[module]
    load_catalogue(reload=True)


def catalogue():
    return load_catalogue(reload=True)


def test_the_built_in_zoos_come_through_the_same_entry_points():
    plugins = {info.plugin: info for info in load_catalogue().plugins}
    assert {"huggingface", "mmpretrain", "open_clip"} <= set(plugins)
    assert plugins["open_clip"].distribution == "mdpd-plugins"
    assert plugins["open_clip"].module == "mdpd_plugins.zoos.open_clip.plugin"


def test_a_plugin_registers_a_backbone_with_its_provenance(site):
    write_plugin(site, "good", version="2.5")
    found = catalogue().get("good/one")
    assert (found.provided_by, found.distribution, found.version) == ("good", "acme-good", "2.5")
    assert found.origin == "acme-good:good"
    assert found.spec.family == "toy"


def test_the_catalogue_is_kept_until_it_is_asked_to_reload(site):
    first = catalogue()
    write_plugin(site, "later")
    assert load_catalogue() is first and "later/one" not in first
    assert "later/one" in catalogue()


def test_select_filters_and_sorts(site):
    write_plugin(
        site,
        "words",
        """
        from mdpd_plugins.registry import BackboneSpec, hookimpl

        @hookimpl
        def register_backbones(register):
            for name, modality in (("b", "text"), ("a", "text"), ("c", "image")):
                register(BackboneSpec(f"words/{name}", build="acme_words:build", modality=modality))
        """,
    )
    found = catalogue()
    assert [r.name for r in found.select(zoo="words")] == ["words/a", "words/b", "words/c"]
    assert [r.name for r in found.select(zoo="words", modality="text")] == ["words/a", "words/b"]
    assert len(found.select()) == len(found)
    assert {r.spec.modality for r in found.select(modality="text")} == {"text"}
    assert [r.name for r in found.select(search="Words/ B")] == ["words/b"]
    assert found.select(zoo="words", search="words nowhere") == []


def test_what_does_not_exist_is_answered_with_what_is_close(site):
    write_plugin(site, "good")
    found = catalogue()
    with pytest.raises(UnknownBackboneError, match="did you mean 'good/one'"):
        found.get("good/onee")
    with pytest.raises(UnknownBackboneError, match="did you mean 'good/one'"):
        found.get("ONE")
    with pytest.raises(UnknownBackboneError, match="zoo called 'goood'.*did you mean 'good'"):
        found.select(zoo="goood")
    with pytest.raises(ConfigError, match="did you mean 'text'"):
        found.select(modality="txt")


def test_an_unknown_name_mentions_the_plugins_that_were_skipped(site):
    write_plugin(site, "broken", "raise RuntimeError('no')")
    with pytest.raises(UnknownBackboneError, match="Skipped because they failed: broken; `mdpd doctor`"):
        catalogue().get("broken/one")


def test_a_plugin_that_fails_half_way_registers_nothing(site):
    write_plugin(
        site,
        "half",
        """
        from mdpd_plugins.registry import BackboneSpec, hookimpl

        @hookimpl
        def register_backbones(register):
            register(BackboneSpec("half/first", build="acme_half:build"))
            raise ValueError("the second one is broken")
        """,
    )
    found = catalogue()
    assert "half/first" not in found
    (failure,) = found.skipped
    assert failure.plugin == "half" and failure.distribution == "acme-half"
    assert failure.reason == "it raised in register_backbones: ValueError: the second one is broken"
    assert "acme_half.py" in failure.traceback


def test_a_name_twice_names_both_plugins_and_keeps_the_first(site):
    write_plugin(site, "aaa")
    write_plugin(site, "zzz", GOOD.format(name="aaa/one", other="zzz/two"))
    found = catalogue()
    assert found.get("aaa/one").provided_by == "aaa"
    assert "zzz/two" not in found
    (failure,) = found.skipped
    assert failure.plugin == "zzz"
    for word in ("'aaa/one'", "'aaa'", "acme-aaa", "'zzz'", "acme-zzz"):
        assert word in failure.reason


def test_a_built_in_backbone_cannot_be_taken_over(site):
    write_plugin(site, "aaa", GOOD.format(name="huggingface/bert-base-uncased", other="aaa/two"))
    found = catalogue()
    assert found.get("huggingface/bert-base-uncased").distribution == "mdpd-plugins"
    assert [failure.plugin for failure in found.skipped] == ["aaa"]


def test_strict_mode_raises_the_first_failure(site, monkeypatch):
    monkeypatch.setenv("MDPD_STRICT_PLUGINS", "1")
    write_plugin(site, "aaa")
    write_plugin(site, "zzz", GOOD.format(name="aaa/one", other="zzz/two"))
    with pytest.raises(DuplicateBackboneError, match="'aaa' of acme-aaa and again by plugin 'zzz'"):
        catalogue()
    write_plugin(site, "bad", "1 / 0")
    with pytest.raises(PluginError, match="plugin 'bad' of acme-bad 1.0.*ZeroDivisionError"):
        catalogue()


def test_two_distributions_may_give_their_plugins_one_name(site):
    for zoo in ("left", "right"):
        source = GOOD.format(name=f"{zoo}/one", other=f"{zoo}/two")
        module = f"acme_{zoo}_vision"
        write_package(site, f"acme-{zoo}", modules={module: source}, plugins={"vision": module})
    found = catalogue()
    assert found.skipped == []
    assert found.get("left/one").distribution == "acme-left"
    assert found.get("right/two").distribution == "acme-right"


def test_a_second_installed_version_is_reported_and_not_loaded_twice(site, tmp_path, monkeypatch):
    write_plugin(site, "good", version="2.0")
    write_plugin(tmp_path / "older", "good", version="1.0")
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path / "older")])
    found = catalogue()
    assert found.get("good/one").version == "2.0"
    (failure,) = found.skipped
    assert failure.version == "1.0" and f"in {tmp_path / 'older'}, is shadowed" in failure.reason
    assert f"version 2.0 of acme-good, in {site}, comes first on sys.path" in failure.reason


def test_an_adapter_hook_is_asked_from_the_last_plugin_to_the_first_and_may_fail(site):
    adapt = """
        from mdpd_plugins.registry import hookimpl

        @hookimpl
        def adapt_backbone(model):
            {body}
        """
    write_plugin(site, "first", adapt.format(body="return ('first', model)"))
    write_plugin(site, "second", adapt.format(body="return None"))
    write_plugin(site, "third", adapt.format(body="raise KeyError('surprise')"))
    found = catalogue()
    assert found.skipped == []
    with pytest.warns(RuntimeWarning, match="plugin 'third' of acme-third 1.0: it raised in adapt_backbone"):
        assert found.adapt(7) == ("first", 7)
    assert found.adapt(7) == ("first", 7)  # and says so once
    (failure,) = found.skipped
    assert failure.plugin == "third" and "KeyError" in failure.traceback


def test_a_plugin_that_was_set_aside_is_asked_for_nothing_more(site):
    write_plugin(
        site,
        "bad",
        """
        from mdpd_plugins.registry import hookimpl

        @hookimpl
        def register_backbones(register):
            raise KeyError("surprise")

        @hookimpl
        def adapt_backbone(model):
            return "from a plugin that failed"
        """,
    )
    found = catalogue()
    assert [failure.plugin for failure in found.skipped] == ["bad"] and found.adapt(7) is None


def test_a_hook_that_returns_no_adapter_is_passed_over_and_named(site):
    write_plugin(
        site,
        "third",
        """
        from mdpd_plugins.registry import hookimpl

        @hookimpl
        def adapt_backbone(model):
            return "an adapter"
        """,
    )
    found = catalogue()
    with pytest.warns(RuntimeWarning, match="'third' of acme-third 1.0: it raised in adapt_backbone.*returned str"):
        assert found.adapt(7, int) is None


def test_of_two_plugins_that_know_a_folder_the_one_loaded_last_loads_it(site):
    for name in ("aaa", "zzz"):
        write_plugin(
            site,
            name,
            f"""
            from mdpd_plugins.registry import hookimpl

            @hookimpl
            def load_export(folder, record):
                return f"{name} of {{folder}}" if record == "both" or record == {name!r} else None
            """,
        )
    found = catalogue()
    assert [found.load_export("here", record) for record in ("both", "aaa")] == ["zzz of here", "aaa of here"]


def test_entry_points_that_cannot_be_read_are_fatal_in_strict_mode(site, monkeypatch):
    write_plugin(site, "garbled")
    entry_points = site / "acme_garbled-1.0.dist-info" / "entry_points.txt"
    entry_points.write_bytes(entry_points.read_bytes() + b"\xff\xfe = nothing\n")
    (failure,) = catalogue().skipped
    assert "its entry points cannot be read" in failure.reason
    monkeypatch.setenv("MDPD_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="its entry points cannot be read.*fatal because MDPD_STRICT_PLUGINS"):
        catalogue()


def test_a_failing_adapter_hook_is_fatal_in_strict_mode(site, monkeypatch):
    write_plugin(
        site,
        "third",
        """
        from mdpd_plugins.registry import hookimpl

        @hookimpl
        def adapt_backbone(model):
            raise KeyError("surprise")
        """,
    )
    found = catalogue()
    monkeypatch.setenv("MDPD_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="'third'"), pytest.warns(RuntimeWarning):
        found.adapt(7)


def test_environment_findings_carry_their_plugin_and_survive_a_failure(site):
    write_plugin(
        site,
        "checks",
        """
        from mdpd_plugins.registry import hookimpl

        @hookimpl
        def check_environment(report):
            report.problem("disk", "it is full", fix="remove something")
            report.note("disk", 5)
        """,
    )
    found, report = catalogue(), EnvironmentReport(try_imports=False)
    with pytest.warns(RuntimeWarning, match="message must be a string, got int"):
        found.check_environment(report)
    mine = [finding for finding in report.findings if finding.plugin == "checks"]
    assert [(f.level, f.topic, f.fix) for f in mine] == [("problem", "disk", "remove something")]
    assert [failure.plugin for failure in found.skipped] == ["checks"]


@pytest.mark.parametrize(
    "end", ["raise SystemExit('broken')", "import os; print('broken', file=sys.stderr); os._exit(3)"]
)
def test_what_plugins_try_to_import_runs_in_one_process_and_a_failure_is_of_that_plugin_alone(site, end):
    statements = {
        "first": "import sys; sys.modules['seen'] = sys",
        "second": f"import sys; {end}",
        "third": "import sys; 'seen' in sys.modules or sys.exit('torch would be imported again')",
        "fourth": "import sys; 'seen' in sys.modules and sys.exit('spoilt by another')",
    }
    for name, statement in statements.items():
        write_plugin(
            site,
            name,
            f"""
            from mdpd_plugins.registry import hookimpl

            @hookimpl
            def check_environment(report):
                report.try_import({statement!r}, lambda failure: report.note("lib", str(failure)))
                report.try_import("import json", lambda failure: report.note(5, ""))
            """,
        )
    if "_exit" in end:
        del statements["third"]  # nothing ran before it in the process that it got
    found, report = catalogue(), EnvironmentReport()
    with pytest.warns(RuntimeWarning, match="topic must be a string, got int"):
        found.check_environment(report)
    mine = {finding.plugin: finding.message for finding in report.findings if finding.topic == "lib"}
    assert {name: mine[name] for name in statements} == {name: "None" for name in statements} | {"second": "broken"}
    assert sorted(failure.plugin for failure in found.skipped) == ["first", "fourth", "second", "third"]


def test_nothing_is_imported_when_a_quick_answer_is_wanted():
    report, told = EnvironmentReport(try_imports=False), []
    report.try_import("raise SystemExit('it ran')", told.append)
    assert told == [None] and not list(report.tried_imports())


def test_a_zoo_that_cannot_be_had_answers_with_the_way_to_get_it(site):
    write_plugin(
        site,
        "absent",
        """
        from mdpd_plugins.registry import hookimpl

        @hookimpl
        def register_backbones(register):
            register.unavailable("absent", reason="libabsent is not installed", fix="pip install libabsent")
        """,
    )
    found = catalogue()
    expected = "libabsent is not installed; run: pip install libabsent"
    for ask in (lambda: found.get("absent/one"), lambda: found.select(zoo="absent")):
        with pytest.raises(ImportError, match=expected):
            ask()


def test_registering_after_the_hook_has_returned_is_refused(site):
    write_plugin(
        site,
        "late",
        """
        from mdpd_plugins.registry import BackboneSpec, hookimpl

        kept = []

        @hookimpl
        def register_backbones(register):
            kept.append(register)

        @hookimpl
        def adapt_backbone(model):
            kept[0](BackboneSpec("late/one", build="acme_late:build"))
        """,
    )
    found = catalogue()
    with pytest.warns(RuntimeWarning, match="after its register_backbones hook had returned"):
        assert found.adapt(object()) is None
    assert "late/one" not in found


def test_what_a_plugin_prints_does_not_reach_stdout(site, capsys):
    write_plugin(site, "noisy", "print('hello from the plugin')\n" + GOOD.format(name="noisy/a", other="noisy/b"))
    assert "noisy/a" in catalogue()
    print(json.dumps({}))
    captured = capsys.readouterr()
    assert captured.out == "{}\n" and "hello from the plugin" in captured.err


GOOD = """
from mdpd_plugins.registry import BackboneSpec, hookimpl

@hookimpl
def register_backbones(register):
    register(BackboneSpec("{other}", build="acme:build"))
    register(BackboneSpec("{name}", build="acme:build"))
"""
