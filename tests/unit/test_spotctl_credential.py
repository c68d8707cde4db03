"""To which address a Prefect credential goes from the operator's machine, and to which never."""

import shlex
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from localcloud.access_proxy import AccessProxy
from spotctl.credential import Access, access, address_of
from spotctl.errors import RefusedError
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
    allowed = access(
        settings, lambda _: None, "", environment, confirmed, lines.append
    ).authorization
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
    access(read(PREFECT_API_URL=url), lambda _: None, "", environment, "", lines.append)
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
    allowed = access(settings, stage.client, react, home, "", print).authorization
    if deployed:
        assert allowed(False) == f"Bearer {KEY}"
    else:
        with pytest.raises(Exception, match="not what the deployed react uses"):
            allowed(False)


OWN_HEADERS = {"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Access": "own"}'}
BEHIND = {"PREFECT_CUSTOM_HEADERS_PARAMETER": "/headers", "PREFECT_CA_CERTIFICATE_PARAMETER": "/ca"}


def through_a_proxy(
    stage: Bench, url: str, own: dict[str, str], lines: list[str], tmp_path: Path
) -> Access:
    """What goes through a proxy before the checkout's `url`; react, if deployed, knows none."""
    ssm = stage.client("ssm")
    ca = AccessProxy("", tmp_path).certificates
    for name, value in (("/headers", '{"X-Access": "stages"}'), ("/ca", ca)):
        ssm.put_parameter(Name=name, Value=value, Type="SecureString")
    stage.deploy_functions()
    settings, home = read(PREFECT_API_URL=url, **BEHIND), {"PREFECT_HOME": str(tmp_path)}
    return access(settings, stage.client, f"{STACK}-react", {**home, **own}, "", lines.append)


@pytest.mark.parametrize("where", ["the environment", "the profile"])
def test_the_operators_own_headers_go_before_the_stages_to_the_own_address(
    stage: Bench, tmp_path: Path, where: str
) -> None:
    own = {"PREFECT_API_URL": OWN, **OWN_HEADERS}
    if where == "the profile":
        text = "".join(f"{name} = '{value}'\n" for name, value in own.items())
        (tmp_path / "profiles.toml").write_text(f'active = "a"\n[profiles.a]\n{text}')
        own = {}
    found = through_a_proxy(stage, OWN, own, [], tmp_path)
    assert found.headers(False) == {"X-Access": "own"}


def test_the_stages_headers_and_authority_serve_who_has_none(stage: Bench, tmp_path: Path) -> None:
    found = through_a_proxy(stage, OWN, {"PREFECT_API_URL": OWN}, [], tmp_path)
    assert found.headers(False) == {"X-Access": "stages"}
    trusted = found.trust(False)
    assert trusted is not None
    assert (len(trusted.get_ca_certs()), trusted.verify_mode) == (1, ssl.CERT_REQUIRED)


def test_no_headers_go_where_react_does_not_send_them(stage: Bench, tmp_path: Path) -> None:
    lines: list[str] = []
    found = through_a_proxy(stage, OTHER, {"PREFECT_API_URL": OWN, **OWN_HEADERS}, lines, tmp_path)
    assert "your PREFECT_CLIENT_CUSTOM_HEADERS is not sent" in lines[0]
    assert "own" not in lines[0].replace("your own", "")
    with pytest.raises(RefusedError, match="not what the deployed react uses"):
        found.headers(False)


@pytest.mark.parametrize("url", [OWN, OTHER])
def test_the_operators_own_certificates_count_for_the_own_address_only(
    stage: Bench, tmp_path: Path, url: str
) -> None:
    file = tmp_path / "mine.pem"
    file.write_text("".join(AccessProxy("", tmp_path / each).certificates for each in "ab"))
    own, lines = {"PREFECT_API_URL": OWN, "PREFECT_API_SSL_CERT_FILE": str(file)}, list[str]()
    trusted = through_a_proxy(stage, url, own, lines, tmp_path).trust(False)
    assert trusted is not None
    assert len(trusted.get_ca_certs()) == (2 if url == OWN else 1)


@pytest.mark.parametrize(
    ("url", "said", "checked"), [(OWN, "t", False), (OTHER, "true", True), (OWN, "false", True)]
)
def test_a_certificate_goes_unchecked_only_where_the_operators_own_client_does_so(
    stage: Bench, tmp_path: Path, url: str, said: str, checked: bool
) -> None:
    own = {"PREFECT_API_URL": OWN, "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": said}
    lines: list[str] = []
    trusted = through_a_proxy(stage, url, own, lines, tmp_path).trust(False)
    assert trusted is not None
    assert (trusted.verify_mode is ssl.CERT_REQUIRED) == trusted.check_hostname == checked
    assert ("is not checked" in "".join(lines)) == (not checked)


@pytest.mark.parametrize(
    "own",
    [
        {"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X": "canary"'},
        {"PREFECT_API_SSL_CERT_FILE": "/not/there.pem"},
        {"PREFECT_API_SSL_CERT_FILE": __file__},
    ],
)
def test_what_is_wrong_of_the_operators_own_is_named_and_not_shown(
    stage: Bench, tmp_path: Path, own: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match=next(iter(own))) as raised:
        through_a_proxy(stage, OWN, {"PREFECT_API_URL": OWN, **own}, [], tmp_path)
    assert "canary" not in str(raised.value)
