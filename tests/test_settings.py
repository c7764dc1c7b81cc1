"Settings: where they may come from, which of them wins, and what a wrong one is told."

from dataclasses import fields
from pathlib import Path

import pytest

from docstral.errors import SettingsError
from docstral.settings import Settings, settings_file


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A working folder without a settings.ini."
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "settings.ini") -> Path:
    "A settings file in the working folder."
    Path(name).write_text(text, encoding="utf8")
    return Path(name).resolve()


def refused(environ: dict[str, str]) -> str:
    "What loading says of these settings."
    with pytest.raises(SettingsError) as error:
        Settings.load(environ)
    assert error.value.action
    return str(error.value)


def test_nothing_is_needed() -> None:
    settings = Settings.load({})
    assert (settings.host, settings.port, settings.provider, settings.docs) == ("127.0.0.1", 7860, "auto", ())


def test_the_environment_wins_over_the_file_and_an_argument_over_both() -> None:
    write("[docstral]\nport = 1111\nmodel = from-file\nhost = 0.0.0.0\n")
    settings = Settings.load({"DOCSTRAL_PORT": "2222", "DOCSTRAL_MODEL": "from-environment"}, model="argument")
    assert (settings.host, settings.port, settings.model) == ("0.0.0.0", 2222, "argument")


def test_an_empty_variable_and_an_argument_of_none_count_as_not_set() -> None:
    write("[docstral]\nport = 1111\nmodel =\n")
    settings = Settings.load({"DOCSTRAL_PORT": " ", "DOCSTRAL_DOCS": ""}, port=None, model=None)
    assert (settings.port, settings.model, settings.docs) == (1111, "mistral-small-latest", ())


def test_the_file_can_be_named() -> None:
    named = write("[docstral]\nport = 3333\n", "mine.ini")
    assert Settings.load({"DOCSTRAL_SETTINGS": str(named)}).port == 3333


def test_the_documented_file_changes_nothing() -> None:
    write(settings_file())
    assert Settings.load({}) == Settings()


def test_every_commented_line_works_once_uncommented() -> None:
    lines = [line.removeprefix("# ") if " = " in line else line for line in settings_file().splitlines()]
    write("\n".join(lines))
    assert Settings.load({}) == Settings()


def test_folders_are_split_at_commas_and_homes_are_found() -> None:
    docs = Settings.load({"DOCSTRAL_DOCS": "~/a b, /c ,"}).docs
    assert docs == (Path("~/a b").expanduser(), Path("/c"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("DOCSTRAL_PORT", "http", "a whole number"),
        ("DOCSTRAL_PORT", "80.5", "a whole number"),
        ("DOCSTRAL_PORT", "-1", "negative"),
        ("DOCSTRAL_STALL_TIMEOUT", "soon", "a number"),
        ("DOCSTRAL_STALL_TIMEOUT", "nan", "negative or infinite"),
        ("DOCSTRAL_REQUEST_TIMEOUT", "inf", "negative or infinite"),
        ("DOCSTRAL_PROVIDER", "openai-ish", "extractive"),
        ("DOCSTRAL_EMBEDDER", "torch", "static"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_can_be(name: str, text: str, said: str) -> None:
    message = refused({name: text})
    assert name in message and text in message and said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[docstral]\nprot = 1\n", "prot, which is no setting"),
        ("[docstral]\nport = x\n", "port in"),
        ("[docstral]\nmistral_api_key = k-123\n", "secrets belong in the environment"),
        ("[docstral]\nport = 1\nport = 2\n", "cannot be read"),
        ("port = 1\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(text: str, said: str) -> None:
    path = write(text)
    message = refused({})
    assert path.name in message and said in message


def test_a_file_that_is_named_but_not_there_is_an_error() -> None:
    assert "nowhere.ini" in refused({"DOCSTRAL_SETTINGS": "nowhere.ini"})


def test_a_file_that_is_no_text_is_an_error() -> None:
    Path("settings.ini").write_bytes(b"[docstral]\nmodel = \xff\xfe\n")
    assert "cannot be read" in refused({})


def test_the_key_comes_from_the_environment_and_is_never_shown() -> None:
    settings = Settings.load({"MISTRAL_API_KEY": "secret-123"})
    assert settings.mistral_api_key == "secret-123"
    assert "secret-123" not in repr(settings) and "secret-123" not in str(settings)
    assert "mistral_api_key" not in settings_file()


def test_a_wrong_key_in_the_file_is_not_repeated() -> None:
    write("[docstral]\nmistral_api_key = secret-123\n")
    assert "secret-123" not in refused({})


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(SettingsError, match="colour"):
        Settings.load({}, colour="red")


@pytest.mark.parametrize("name", ["DOCSTRAL_DATA_DIR", "DOCSTRAL_DOCS", "DOCSTRAL_SETTINGS"])
def test_the_home_of_nobody_is_an_error(name: str) -> None:
    message = refused({name: "~nobody-of-that-name/x"})
    assert name in message and "no home" in message


def test_a_port_past_65535_is_an_error() -> None:
    assert "DOCSTRAL_PORT" in refused({"DOCSTRAL_PORT": "99999"})


def test_every_setting_explains_itself() -> None:
    for setting in fields(Settings):
        assert setting.metadata["explanation"], setting.name


@pytest.mark.parametrize("name", ["MISTRAL_URL", "OPENAI_URL", "TRACES_URL", "SYNC_URL"])
@pytest.mark.parametrize(
    "address",
    ["a.org:80", "ftp://a:secret-123@b.org", "http://[::1", "http://a.org:99999", "http://", "http://host name"],
)
def test_an_address_that_is_none_is_an_error_and_not_repeated(name: str, address: str) -> None:
    message = refused({f"DOCSTRAL_{name}": address})
    assert name.lower() in message and "secret-123" not in message


@pytest.mark.parametrize(("provider", "needed"), [("openai", "openai_url"), ("vllm", "vllm_model")])
def test_a_provider_without_what_it_needs_is_an_error(provider: str, needed: str) -> None:
    named = {"DOCSTRAL_PROVIDER": provider}
    assert needed in refused(named)
    assert Settings.load(named | {f"DOCSTRAL_{needed.upper()}": "http://127.0.0.1:8000"}).provider == provider
