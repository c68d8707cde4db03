"""To which address a Prefect credential goes from the operator's machine, and to which never."""

import shlex
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from spotctl.credential import address_of, authorization
from tests.unit.scripted_server import ScriptedServer, answer
from tests.unit.spotctl_bench import KEY, STACK, Bench
from tests.unit.spotctl_bench import stage as stage
from tests.unit.test_settings import read
from tests.unit.test_spotctl_cli import prefect

OWN = "https://prefect.example.com/api"
OTHER = "https://evil.example.com/api"


def sent(url: str, own: str, confirmed: str = "") -> str:
    """What goes to the checkout's `url` of an operator whose PREFECT_API_URL is `own`."""
    environment = {"PREFECT_API_KEY": KEY, "PREFECT_API_URL": own, "PREFECT_HOME": "/none"}
    lines: list[str] = []
    settings = read(PREFECT_API_URL=url)
    allowed = authorization(settings, lambda _: None, "", environment, confirmed, lines.append)
    assert [allowed(False), allowed(True)] in ([None, None], [f"Bearer {KEY}"] * 2)
    assert KEY not in "".join(lines)
    assert (allowed(False) is None) == ("your PREFECT_API_KEY is not sent" in "".join(lines))
    return allowed(False) or ""


@pytest.mark.parametrize(
    ("url", "own", "confirmed"),
    [
        (OWN, OWN, ""),
        (f"{OWN}/", "HTTPS://PREFECT.example.com.:443/api", ""),
        (OTHER, OWN, OTHER),
        (OTHER, "", OTHER),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api", ""),
        ("http://[::1]:4200/api", "http://[::1]:4200/api", ""),
        ("http://localhost:4200/api", OWN, "http://localhost:4200/api"),
    ],
)
def test_the_operators_key_goes_to_their_own_address_or_a_confirmed_one(
    url: str, own: str, confirmed: str
) -> None:
    assert sent(url, own, confirmed) == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "own", "confirmed"),
    [
        (OTHER, OWN, ""),
        (OWN, "", ""),
        (OWN, OWN.replace("/api", "/api/v2"), ""),
        (f"{OWN}/../../evil", OWN, ""),
        ("https://prefect.example.com:8443/api", OWN, ""),
        ("https://prefect.example.com.evil.example/api", OWN, ""),
        ("https://xprefect.example.com/api", OWN, ""),
        (OTHER, f"https://u:p@{OTHER.removeprefix('https://')}", ""),
        (OTHER, OWN, OWN),
        ("http://127.0.0.1:4200/api", OWN, ""),
        ("http://127.0.0.1:4200/api", "", ""),
        ("http://127.0.0.1:4201/api", "http://127.0.0.1:4200/api", ""),
        ("http://prefect.example.com/api", OWN, ""),
        ("http://prefect.example.com/api", "http://prefect.example.com/api", ""),
        ("http://prefect.example.com/api", OWN, "http://prefect.example.com/api"),
        ("http://127.0.0.1.evil.example/api", "http://127.0.0.1.evil.example/api", ""),
        ("http://localhost.evil.example/api", "http://localhost.evil.example/api", ""),
        ("http://10.0.0.7:4200/api", "http://10.0.0.7:4200/api", "http://10.0.0.7:4200/api"),
        ("http://0.0.0.0:4200/api", "http://0.0.0.0:4200/api", ""),
    ],
)
def test_it_goes_nowhere_else_and_never_over_http(url: str, own: str, confirmed: str) -> None:
    assert sent(url, own, confirmed) == ""


def test_an_address_is_proposed_such_that_a_shell_runs_nothing_of_it() -> None:
    """It comes from the checkout, and goes with its option from the screen to the prompt."""
    url, lines = "http://127.0.0.1:1/$(id);`id`|id&'\"", list[str]()
    environment = {"PREFECT_API_KEY": KEY, "PREFECT_HOME": "/none"}
    authorization(read(PREFECT_API_URL=url), lambda _: None, "", environment, "", lines.append)
    assert shlex.split(lines[0].partition("--send-key-to ")[2])[0] == url


@pytest.mark.parametrize(
    "url",
    ["", "ftp://p.de", "https://", "https://p.de/api?x=1", "https://p.de/api#x", "https://p\\@e.de",
     "https://u@p.de", "https://p.de:x/api", "https://p\u0440efect.de", "https://[::1/api"],
)  # fmt: skip
def test_what_is_no_plain_address_is_none(url: str) -> None:
    assert address_of(url) is None


@pytest.mark.parametrize("variable", ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"])
@pytest.mark.parametrize("where", ["the environment", "the profile", "elsewhere", "the checkout"])
def test_the_own_address_is_of_the_environment_or_the_profile(
    stage: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, where: str
) -> None:
    stage.answers = prefect()
    url = f"{stage.server.url}/api"
    monkeypatch.setenv(variable, KEY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"PREFECT_API_URL={url}\n")
    (tmp_path / "prefect.toml").write_text(f'[api]\nurl = "{url}"\n')
    if where == "the environment":
        monkeypatch.setenv("PREFECT_API_URL", url)
    elif where != "the checkout":
        home = tmp_path / "prefect"
        home.mkdir()
        of_profile = url if where == "the profile" else OTHER
        text = f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{of_profile}"\n[profiles.b]\n'
        (home / "profiles.toml").write_text(text)
    result = stage.run("status")
    headers = {seen.headers.get("Authorization", "") for seen in stage.requests}
    assert (headers != {""}) == (where in ("the environment", "the profile"))
    assert (f"your {variable} is not sent" in result.err) == (headers == {""})


@pytest.fixture
def elsewhere() -> Iterator[ScriptedServer]:
    with ScriptedServer([answer(body={})]) as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_does_not_carry_it_elsewhere(
    stage: Bench, monkeypatch: pytest.MonkeyPatch, elsewhere: ScriptedServer, status: int
) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        answer(status, Location=f"{elsewhere.url}{handler.path}")(handler)

    with ScriptedServer([redirect]) as server:
        stage.configure(PREFECT_API_URL=f"{server.url}/api")
        monkeypatch.setenv("PREFECT_API_KEY", KEY)
        monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
        result = stage.run("status")
        assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert (elsewhere.seen, result.code) == ([], 1)


@pytest.mark.parametrize("deployed", [True, False])
def test_the_stages_credential_goes_off_this_machine_only_where_react_sends_it(
    stage: Bench, deployed: bool
) -> None:
    settings = read(PREFECT_API_URL=OTHER, PREFECT_API_KEY_PARAMETER="/key")
    stage.client("ssm").put_parameter(Name="/key", Value=KEY, Type="SecureString")
    stage.deploy_functions()
    variables = {"PREFECT_API_URL": OTHER if deployed else OWN, "PREFECT_API_KEY_PARAMETER": "/key"}
    stage.client("lambda").update_function_configuration(
        FunctionName=f"{STACK}-react", Environment={"Variables": variables}
    )
    react, home = f"{STACK}-react", {"PREFECT_HOME": "/none"}
    allowed = authorization(settings, stage.client, react, home, "", print)
    if deployed:
        assert allowed(False) == f"Bearer {KEY}"
    else:
        with pytest.raises(Exception, match="not what the deployed react uses"):
            allowed(False)
