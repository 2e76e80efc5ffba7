"""What the provider tells Airflow of itself is well-formed, true and complete."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import airflow
import jsonschema  # type: ignore[import-untyped]
import pytest

from airflow_provider_quoine.get_provider_info import PACKAGE, get_provider_info
from airflow_provider_quoine.hooks.connection import ConnectionExtras

ROOT = Path(__file__).resolve().parent.parent
INFO = get_provider_info()
FLOORS = ("hooks", "operators", "sensors", "triggers")
(CONNECTION,) = INFO["connection-types"]
#: Parts of an Airflow provider that people import, by the end of their names.
PARTS = ("Hook", "Operator", "Sensor", "Trigger")


@pytest.mark.parametrize("name", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_it_obeys_the_schemas_that_airflow_ships(name: str) -> None:
    schema = json.loads((Path(airflow.__file__).parent / name).read_text(encoding="utf-8"))
    jsonschema.validate(INFO, schema)


def modules(floor: str) -> list[str]:
    """The modules that it names of one floor."""
    (named,) = INFO[floor]
    found: list[str] = named["python-modules"]
    return found


def public_parts(module: str) -> set[str]:
    """The classes that a module defines for people to import."""
    return {
        name
        for name, value in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if value.__module__ == module and name.startswith("Quoine") and name.endswith(PARTS)
    }


@pytest.mark.parametrize("floor", FLOORS)
def test_every_module_with_a_part_for_people_is_named_and_no_other(floor: str) -> None:
    stems = [path.stem for path in (ROOT / PACKAGE / floor).glob("*.py") if path.stem != "__init__"]
    every = {f"{PACKAGE}.{floor}.{stem}" for stem in stems}
    # A base class for the modules beside it is none.
    bases = {f"{PACKAGE}.sensors.base"}
    assert set(modules(floor)) == {module for module in every - bases if public_parts(module)}


@pytest.mark.parametrize(
    "path",
    [CONNECTION["hook-class-name"], *INFO["extra-links"], *INFO["cli"]],
    ids=lambda path: path.rpartition(".")[2],
)
def test_every_class_and_function_that_is_named_exists(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_hook_is_the_one_of_the_connection_type() -> None:
    module, _, name = CONNECTION["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (CONNECTION["connection-type"], CONNECTION["hook-name"])


def test_the_form_has_every_extra_field_and_no_other() -> None:
    assert CONNECTION["conn-fields"].keys() == ConnectionExtras.model_fields.keys()


@pytest.mark.parametrize("name", ConnectionExtras.model_fields)
def test_a_field_is_explained_and_its_schema_takes_its_default(name: str) -> None:
    field = CONNECTION["conn-fields"][name]
    assert field["label"]
    assert field["description"].endswith(".")
    schema: dict[str, Any] = field["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(schema["default"], schema)
    assert schema["default"] == ConnectionExtras.model_fields[name].default


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("signing_scheme", "basic"),
        ("connect_timeout", 0),
        ("read_timeout", 601),
        ("max_document_mb", -1),
        ("withdrawal_max", "1e3"),
        ("withdrawal_max_24h", "Unlimited"),
        ("withdrawal_count_day", "1.5"),
        ("bitcoin_network", "moon"),
        ("withdrawal_link", "javascript:alert('{id}')"),
        ("pusher_port", 65536),
    ],
)
def test_the_form_refuses_what_the_connection_would(name: str, wrong: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, CONNECTION["conn-fields"][name]["schema"])
