"""`relay.toml`: what is read, and one line for each mistake that names the key and what is allowed."""

import pytest

from ecr_relay.config import RelayConfig, parse
from ecr_relay.errors import ConfigError

GOOD = """
[source]
region = "us-east-1"
account = "111111111111"

[[destinations]]
name = "west"
region = "eu-west-1"
account = "222222222222"
prefix = "mirror"
"""


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBhjCCASugAwIBAgIUK8ES97peKiHuPo9QPQAxITGTFSYwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNcmVnaXN0cnkudGVzdDAeFw0yNjExMjQxMTMyMTZaFw0yNjEx
MjYxMTMyMTZaMBgxFjAUBgNVBAMMDXJlZ2lzdHJ5LnRlc3QwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAARnNNliGVFGBuG/YkSZYucABqw4glnlVcDWC0SgIik1H+hh
dC9wEwvpXC4VrNLwaj64T7vemXJz1Eoqa2IAgmRto1MwUTAdBgNVHQ4EFgQUV1JZ
GqSfRRymd3HzWnqKeCeRlXcwHwYDVR0jBBgwFoAUV1JZGqSfRRymd3HzWnqKeCeR
lXcwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAg2OiKurocl8c
iieT7HN7p7gloZ3KtmPCU5RnwCUnST0CIQCFj2kutV6EldHGZ9pyAmX5cC7K3Maq
iII6tVDX5IJY1Q==
-----END CERTIFICATE-----
"""
"""Of nobody, and expired: what is checked is that it is one."""


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_defaults() -> None:
    config = parse(GOOD)
    assert config.source.id == "111111111111.us-east-1"
    assert config.destinations[0].repository("team/app") == "mirror/team/app"
    assert config.rules[0].repositories == ("*",)
    assert config.deployment.architecture == "arm64"


def test_the_parameter_holds_the_whole_configuration() -> None:
    config = parse(GOOD + '[[rules]]\ntags = ["v*"]\nexclude_tags = ["*-rc*"]\n')
    assert RelayConfig.from_parameter(config.to_parameter()) == config


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ('region = "us-east-1"', 'region = "us-east1"'),
            "relay.toml: source.region: 'us-east1' is no AWS region; did you mean 'us-east-1'? allowed: af-south-1, ",
        ),
        (
            ('prefix = "mirror"', 'prefx = "mirror"'),
            "relay.toml: destinations[0].prefx: unknown key; did you mean 'prefix'? "
            "allowed: account, credentials, endpoint, max_deletes, max_tasks, name, new_repository, "
            "on_conflict, prefix, put_image_per_second, region, target",
        ),
        (('account = "111111111111"', "account = 111111111111"), "relay.toml: source.account: input should be a valid"),
        (
            ('account = "111111111111"', 'account = "1111"'),
            "relay.toml: source.account: '1111' does not match ^[0-9]{12}$",
        ),
        (('account = "111111111111"', ""), "relay.toml: source.account: missing; this key is required"),
        (
            ('prefix = "mirror"', 'prefix = "Mirror"'),
            "relay.toml: destinations[0].prefix: 'Mirror' makes no valid repository name",
        ),
        (
            ('prefix = "mirror"', "max_tasks = 11"),
            "relay.toml: destinations[0].max_tasks: input should be less than or equal to 10, not 11",
        ),
        (
            ('prefix = "mirror"', '[[rules]]\ndestinations = ["east"]'),
            "relay.toml: rules[0].destinations: 'east' is not a destination; allowed: west",
        ),
        (
            ('prefix = "mirror"', '[[rules]]\nuntagged = "yes"'),
            "relay.toml: rules[0].untagged: input should be a valid boolean, not 'yes'",
        ),
        (('region = "us-east-1"', "region ="), "relay.toml: not valid TOML: Invalid value"),
        (
            ("[source]", "[sauce]"),
            "relay.toml: source: missing; this key is required\nrelay.toml: sauce: unknown key; ",
        ),
        (
            ('prefix = "mirror"', "[destinations.credentials]\n"),
            "relay.toml: destinations[0].credentials: needs either role_arn or secret_arn",
        ),
        (
            ('prefix = "mirror"', '[deployment]\nreconcile_at = "25:00"'),
            "relay.toml: deployment.reconcile_at: '25:00' does not match",
        ),
    ],
)
def test_a_mistake_is_a_line_that_names_the_key(change: tuple[str, str], line: str) -> None:
    text = refusal(GOOD.replace(*change))
    assert text.startswith(line)
    if "\n" not in line:
        assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[deployment]\ntask_memory_mib = 512",
            "deployment: task_memory_mib: Fargate gives 1024 CPU units 2048 to 8192 MiB",
        ),
        (
            "[destinations.new_repository]\nlifecycle_policy = '{'",
            "destinations[0].new_repository.lifecycle_policy: not JSON",
        ),
        (
            "[destinations.new_repository]\nlifecycle_policy = '{}'",
            "new_repository.lifecycle_policy: 2 characters; ECR takes",
        ),
        (
            "[deployment.network]\nvpc_id = 'vpc-1'\nsubnet_ids = ['subnet-12345678']",
            "deployment.network.vpc_id: 'vpc-1' does",
        ),
    ],
)
def test_what_aws_would_refuse_is_refused_here(text: str, line: str) -> None:
    assert line in refusal(f"{GOOD}\n{text}")


def test_names_and_targets_are_unique() -> None:
    again = GOOD[GOOD.index("[[") :]
    assert "destinations[1].name: 'west' is used twice" in refusal(GOOD + again)
    assert "would write the same place" in refusal(GOOD + again.replace('"west"', '"other"'))


def test_no_ring() -> None:
    inside = GOOD.replace("eu-west-1", "us-east-1").replace("222222222222", "111111111111")
    assert "rules[0].exclude_repositories: must contain 'mirror/*'" in refusal(inside)
    assert "destinations[0].prefix: needed" in refusal(inside.replace('prefix = "mirror"', ""))
    assert parse(inside + '[[rules]]\nexclude_repositories = ["mirror/*"]\n').destinations[0].prefix == "mirror"


def test_what_no_parameter_can_hold_is_refused() -> None:
    rules = "".join(f'[[rules]]\nrepositories = ["team-{number}/{"x" * 200}"]\n' for number in range(50))
    with pytest.raises(ConfigError, match="an SSM parameter holds 8192"):
        parse(GOOD + rules).to_parameter()


@pytest.mark.parametrize(("destinations", "most"), [(1, 10), (2, 9), (3, 4), (4, 3), (12, 1)])
def test_slow_destinations_never_starve_another(destinations: int, most: int) -> None:
    again = GOOD[GOOD.index("[[") :]
    config = parse(
        GOOD + "".join(again.replace('"west"', f'"d{n}"').replace("mirror", f"m{n}") for n in range(destinations - 1))
    )
    assert {config.max_tasks(destination) for destination in config.destinations} == {most}
    assert (destinations - 1) * most < 10 or destinations > 10
    one = parse(GOOD.replace('prefix = "mirror"', "max_tasks = 2"))
    assert one.max_tasks(one.destinations[0]) == 2


NETWORK = '[deployment.network]\nvpc_id = "vpc-0123456789abcdef0"\nsubnet_ids = ["subnet-0123456789abcdef0"]\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[deployment]\nhttps_proxy = "http://proxy"\nno_proxy = ["a b"]',
            "deployment.no_proxy[0]: 'a b' does",
        ),
        ('[deployment]\nno_proxy = [".internal"]', "deployment: no_proxy goes with https_proxy"),
        (
            '[deployment]\nhttps_proxy = "proxy:3128"',
            "deployment.https_proxy: 'proxy:3128' is no proxy",
        ),
        (
            NETWORK + "functions = true\nassign_public_ip = true",
            "deployment.network: functions: a function has",
        ),
        ('[deployment]\nregion = "cn-north-1"', "deployment.region: cn-north-1 is in partition aws-cn, and events of"),
        (
            '[destinations.credentials]\nrole_arn = "arn:aws:iam::222222222222:role/there"\n'
            'kms_key_arn = "arn:aws:kms:us-east-1:111111111111:key/1"',
            "destinations[0].credentials: kms_key_arn goes with secret_arn",
        ),
    ],
)
def test_networks_proxies_and_keys(text: str, line: str) -> None:
    assert line in refusal(f"{GOOD}\n{text}")


def test_a_proxys_password_is_refused_and_not_repeated() -> None:
    line = refusal(f'{GOOD}\n[deployment]\nhttps_proxy = "http://me:hunter2@proxy.example.com:3128"')
    assert line.startswith("relay.toml: deployment.https_proxy: a user and a password have no place in this file")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            'host = "111111111111.dkr.ecr.us-east-1.amazonaws.com"',
            "source.host: '111111111111.dkr.ecr.us-east-1.amazonaws.com' is Amazon ECR, which has events",
        ),
        ('host = "a.example"\nca_certificate = "hunter2"', "source.ca_certificate: no certificate; allowed: PEM text"),
        (
            f'host = "a.example"\nplain_http = true\nca_certificate = """{CERTIFICATE}"""',
            "source: needs either plain_http or ca_certificate, not both",
        ),
    ],
)
def test_an_oci_source_that_cannot_be(keys: str, line: str) -> None:
    rest = GOOD[GOOD.index("[[") :] + '[[rules]]\nrepositories = ["team/app"]\n'
    assert line in refusal(f'[source]\ntype = "oci"\n{keys}\n{rest}')


def test_an_oci_source_leaves_the_relay_where_it_is_said() -> None:
    source = '[source]\ntype = "oci"\nhost = "quay.io"\n'
    oci = source + GOOD[GOOD.index("[[") :] + '[[rules]]\nrepositories = ["team/app"]\n'
    assert parse(oci).home == ("222222222222", "eu-west-1")
    key = "arn:aws-cn:secretsmanager:cn-north-1:111111111111:secret:key-AbCdEf"
    keyed = oci.replace("[[rules]]", f'[destinations.credentials]\nsecret_arn = "{key}"\n[[rules]]')
    assert parse(keyed + '[deployment]\nregion = "cn-north-1"').home == ("222222222222", "cn-north-1")
