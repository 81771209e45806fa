"""`relay.toml`: what is read, and one line for each mistake that names the key and what is allowed."""

import pytest

from ecr_relay import rules
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


def test_a_byte_order_mark_does_not_matter() -> None:
    assert parse("\ufeff" + GOOD) == parse(GOOD)


def test_the_parameter_holds_the_whole_configuration() -> None:
    config = parse(GOOD + '[[rules]]\ntags = ["v*"]\nexclude_tags = ["*-rc*"]\n')
    assert RelayConfig.from_parameter(config.to_parameter()) == config


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ('region = "us-east-1"', 'region = "us-east1"'),
            "relay.toml: source.region: 'us-east1' is no AWS region; did you mean 'us-east-1' or 'us-west-1'?",
        ),
        (
            ('region = "us-east-1"', 'region = "us-eest-1"'),
            "relay.toml: source.region: 'us-eest-1' is no AWS region; did you mean 'us-west-1' or 'us-east-1'?",
        ),
        (
            ('region = "us-east-1"', 'region = "moon"'),
            "relay.toml: source.region: 'moon' is no AWS region; allowed: those with ECR, as 'us-east-1'",
        ),
        (
            ('prefix = "mirror"', 'prefx = "mirror"'),
            "relay.toml: destinations[0].prefx: unknown key; did you mean 'prefix'? "
            "allowed: account, credentials, endpoint, max_deletes, max_tasks, name, new_repository, "
            "on_conflict, prefix, put_image_per_second, region, target",
        ),
        (
            ('account = "111111111111"', "account = 111111111111"),
            "relay.toml: source.account: should be a text, in quotes, not 111111111111",
        ),
        (
            ('prefix = "mirror"', '[[rules]]\ntags = "v*"'),
            "relay.toml: rules[0].tags: should be a list, in brackets, not 'v*'",
        ),
        (
            ('prefix = "mirror"', '[[rules]]\nnewest = "3"'),
            "relay.toml: rules[0].newest: should be a whole number, without quotes, not '3'",
        ),
        (
            ('prefix = "mirror"', 'put_image_per_second = "8"'),
            "relay.toml: destinations[0].put_image_per_second: should be a number, without quotes, not '8'",
        ),
        (
            ('prefix = "mirror"', 'credentials = "arn"'),
            "relay.toml: destinations[0].credentials: should be a table, not 'arn'",
        ),
        (
            ('prefix = "mirror"', 'new_repository = { mutable_tags = ["a", "b", "c", "d", "e", "f"] }'),
            "relay.toml: destinations[0].new_repository.mutable_tags: takes at most 5 entries, not [",
        ),
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
            "relay.toml: rules[0].untagged: should be true or false, without quotes, not 'yes'",
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
    many = "".join(f'[[rules]]\nrepositories = ["team-{number}/{"x" * 200}"]\n' for number in range(50))
    with pytest.raises(ConfigError, match="an SSM parameter holds 8192"):
        parse(GOOD + many).to_parameter()


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
        *(
            (f'[deployment]\nrunbook_url = "{url}"', f"deployment.runbook_url: {url!r} is no page by https without a #")
            for url in ("http://wiki.example.com/relay", "docs/operating.md", "https://a.b/c#lag", "https://me:x@a.b/c")
        ),
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


OCI = """
[source]
type = "oci"
host = "docker.io"

[[destinations]]
name = "west"
region = "eu-west-1"
account = "222222222222"

[[rules]]
"""
AGAIN = GOOD[GOOD.index("[[") :].replace('"west"', '"other"')


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ('semver = "newest"', "rules[0].semver: 'newest' is no semver range; allowed: such as '>=1.2 <2'"),
        ('semver = ">=1.2, <2"', "rules[0].semver: '>=1.2, <2' is no semver range"),
        ('semver = " "', "rules[0].semver: ' ' is no semver range"),
        ('tag_regex = "v["', "rules[0].tag_regex: 'v[' is no RE2 expression: missing ]"),
        (r"tag_regex = '(a)\1'", r"rules[0].tag_regex: '(a)\\1' is no RE2 expression: invalid escape sequence"),
        ('tag_regex = "(?!dev).*"', "no RE2 expression: invalid perl operator: (?! (no backreferences, no lookaround)"),
        ('tag_regex = "(((a{500}){500}){500})"', "no RE2 expression: invalid repetition size"),
        ('platforms = ["linux/amd64"]', "rules[0].platforms: a subset of an index's platforms is another index"),
        ('architectures = ["arm64"]', "rules[0].architectures: a subset of an index's platforms"),
        ("newest = 0", "rules[0].newest: input should be greater than or equal to 1, not 0"),
        ('newest_by = "age"', "rules[0].newest_by: input should be 'pushed' or 'version', not 'age'"),
        ('newest_by = "version"', "rules[0]: newest_by goes with newest, which says how many"),
        ('mode = "dry"', "rules[0].mode: input should be 'copy' or 'observe', not 'dry'"),
        ('mode = "observe"\ndeletes = "propagate"', 'rules[0]: deletes: "propagate" goes with mode = "copy"'),
        ('images = "ubuntu:14.04,go lang:"', "rules[0].images: 'lang:': '' is not a tag"),
        ('images = ""', "rules[0].images: names no image"),
        (f'images = "ubuntu@sha256:{"0" * 64}"', "an image here is repository:tag, without a digest"),
        ('images = "ubuntu"\ntags = ["v*"]', "rules[0]: images is in place of tags; leave tags out, or write it as"),
        ("tags = []", "rules[0].tags: needs at least 1 entry, not []"),
        (
            'repositories = ["ubuntu:14.04"]',
            "rules[0].repositories[0]: 'ubuntu:14.04' can match no repository, since none",
        ),
        (
            'repositories = ["[a"]',
            "rules[0].repositories[0]: '[a' can match no repository: '[' only means something in a whole class, as in",
        ),
        ('tags = ["v[0-9]*", "v[0-9]]"]', "rules[0].tags[1]: 'v[0-9]]' can match no tag: ']' only means something in"),
        ('exclude_tags = ["!v*"]', "rules[0].exclude_tags[0]: '!v*' can match no tag: '!' only means something in"),
        ('exclude_repositories = ["Team/*"]', "rules[0].exclude_repositories[0]: 'Team/*' can match no repository"),
        (
            'tags = ["^v.*$"]',
            "rules[0].tags[0]: '^v.*$' can match no tag, since none has '^' in its name; expressions go",
        ),
        ('exclude_tags = ["v[0-9]+"]', "rules[0].exclude_tags[0]: 'v[0-9]+' can match no tag"),
        (
            'images = "a.example:5000/team/app:1"',
            "'a.example:5000/team/app:1': an image here is repository:tag, without its registry's host",
        ),
        (
            'images = "111111111111.dkr.ecr.us-east-1.amazonaws.com/app"',
            "rules[0].images: '111111111111.dkr.ecr.us-east-1.amazonaws.com/app' begins with a registry's host",
        ),
        ('repositories = ["mirror/app"]', "rules[0].repositories: 'mirror/app' looks like what destination 'west' is"),
        ('images = "mirror/app:1"', "rules[0].images: 'mirror/app' looks like what destination 'west' is given"),
    ],
)
def test_a_rule_that_is_none(rule: str, line: str) -> None:
    text = refusal(f"{GOOD}\n[[rules]]\n{rule}")
    assert text.startswith("relay.toml: ")
    assert line in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("rule", "selects"),
    [
        ('semver = "1.x || >=3"', {"v1.9", "3.0.0"}),
        ('tag_regex = "(a+)+b"', {"a" * 127 + "b"}),
        ('tags = ["ALL_TAGS"]\nexclude_tags = ["a*"]', {"v1.9", "3.0.0", "latest"}),
        ('tags = ["*"]\ntag_regex = ".*9"\nsemver = "1"', {"v1.9"}),
        (r'images = "team/app:v1.9, other\\nteam/app:latest"', {"v1.9", "latest"}),
        ('images = "team/app"', {"latest"}),
        (r'images = ",\nteam/app :\n v1.9 ,\r\n"', {"v1.9"}),
        ('images = "team/app:ALL_TAGS team/app:1"', {"v1.9", "3.0.0", "latest", "a" * 127 + "b", "a" * 128}),
    ],
)
def test_what_is_given_for_tags_must_all_match(rule: str, selects: set[str]) -> None:
    """RE2 needs time in proportion to the tag, also for what would keep others busy for ever."""
    config = parse(f"{GOOD}\n[[rules]]\n{rule}")
    tags = ("v1.9", "3.0.0", "latest", "a" * 127 + "b", "a" * 128)
    assert {tag for tag in tags if rules.selections(config, "team/app", tag)} == selects


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("", 'mode = "observe"', False),
        ('tags = ["v*"]', 'tags = ["*-dev"]\nreferrers = false', False),
        ('repositories = ["team/*"]', 'images = "team/app"\ndeletes = "propagate"', False),
        ('repositories = ["team/*"]', 'repositories = ["base/*"]\nmode = "observe"', True),
        ('exclude_repositories = ["team/*"]', 'repositories = ["team/*"]\nmode = "observe"', True),
        ('tags = ["v*"]', 'exclude_tags = ["v*"]\nmode = "observe"', True),
        ('tags = ["v1"]', 'tags = ["v2"]\nmode = "observe"', True),
        ('tags = ["v1"]\nuntagged = true', 'tags = ["v2"]\nuntagged = true\nmode = "observe"', False),
        ('semver = "1"', 'semver = "2"\nmode = "observe"', True),
        ('semver = "1"', 'semver = "1"\nmode = "observe"', False),
        ("", "newest = 3", True),
    ],
)
def test_rules_that_surely_overlap_agree_on_how(one: str, other: str, agree: bool) -> None:
    text = f"{GOOD}\n[[rules]]\n{one}\n[[rules]]\n{other}"
    if agree:
        assert len(parse(text).rules) == 2
    else:
        assert "which selects some of the same images for the same destination" in refusal(text)
        named = text.replace(f"[[rules]]\n{one}", f'[[rules]]\ndestinations = ["west"]\n{one}', 1)
        apart = named + '\ndestinations = ["other"]\n' + AGAIN.replace("eu-west-1", "eu-west-2")
        assert len(parse(apart).rules) == 2


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (('type = "oci"', 'type = "docker"'), "source.type: 'docker' is no kind of source; allowed: 'ecr', 'oci'"),
        (('type = "oci"', "type = 3"), "source.type: '3' is no kind of source"),
        (('"docker.io"', '"https://docker.io"'), "source.host: 'https://docker.io' does not match"),
        (('"docker.io"', '"docker.io"\nusername = "me"'), "source.username: unknown key; allowed: "),
        (
            ('"docker.io"', '"docker.io"\npoll_minutes = 1'),
            "source.poll_minutes: input should be greater than or",
        ),
        (
            ('"docker.io"', '"docker.io"\ncredentials = { secret_arn = "hub" }'),
            "source.credentials.secret_arn: 'hub' does not match",
        ),
        (
            ('"docker.io"', '"docker.io"\ncredentials = { role_arn = "x" }'),
            "source.credentials.secret_arn: missing; this key is required\n"
            "relay.toml: source.credentials.role_arn: unknown key; allowed: ",
        ),
        (
            ('"docker.io"', '"111111111111.dkr.ecr.eu-west-1.amazonaws.com"'),
            "source.host: '111111111111.dkr.ecr.eu-west-1.amazonaws.com' is Amazon ECR, which has events",
        ),
        (('["nginx"]', '["team/*"]'), "rules[0].repositories: 'team/*': docker.io cannot be asked what repositories"),
        (('["nginx"]', '["nginx"]\nuntagged = true'), "rules[0].untagged: docker.io lists tags only"),
        (
            ('["nginx"]', '["nginx"]\nnewest = 3'),
            "rules[0].newest_by: docker.io tells no push dates; use newest_by = ",
        ),
        (
            ('repositories = ["nginx"]', 'images = "quay.io/coreos/etcd:v3"'),
            "rules[0].images: 'quay.io/coreos/etcd' is of another registry, quay.io; a relay has one source",
        ),
        (
            ('["nginx"]', '["quay.io/coreos/etcd"]'),
            "rules[0].repositories: 'quay.io/coreos/etcd' is of another registry",
        ),
        (
            ('["nginx"]', '["index.docker.io/nginx"]'),
            "rules[0].repositories: 'index.docker.io/nginx' begins with a registry's host; leave that out",
        ),
    ],
)
def test_a_source_of_another_kind(change: tuple[str, str], line: str) -> None:
    good = OCI + 'repositories = ["nginx"]\n'
    assert sorted(rules.named(parse(good))) == ["nginx"]
    assert refusal(good.replace(*change)).startswith(f"relay.toml: {line}")


def test_the_registrys_own_host_is_no_part_of_a_name() -> None:
    quay = OCI.replace("docker.io", "quay.io") + 'images = "quay.io/coreos/etcd:v3"'
    line = "rules[0].images: 'quay.io/coreos/etcd' begins with a registry's host; leave that out, as in 'coreos/etcd'"
    assert refusal(quay) == f"relay.toml: {line}"


@pytest.mark.parametrize("source", ["source = 3", 'source = "ecr"', "source = []", '[source]\ntype = ["ecr"]'])
def test_a_source_that_is_no_table(source: str) -> None:
    assert refusal(source + GOOD[GOOD.index("\n[[") :]).startswith("relay.toml: source")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ('target = "Hub/{repository}"', "target: 'Hub/{repository}' makes no valid repository name"),
        ('target = "hub"', "target: 'hub' must have {repository} once"),
        ('target = "{repository}/{repository}"', "must have {repository} once, so that no two repositories become one"),
        ('prefix = "mirror/"', "prefix: 'mirror/' makes no valid repository name"),
        ('prefix = "a"\ntarget = "b/{repository}"', "needs either prefix or target, not both"),
        ('on_conflict = "win"', "on_conflict: input should be 'overwrite', 'keep' or 'fail', not 'win'"),
        ("max_deletes = 0", "max_deletes: input should be greater than or equal to 1, not 0"),
        ("[destinations.new_repository]\nmutable_tags = ['sha256-*']", "mutable_tags goes with immutable_tags = true"),
        (
            "[destinations.new_repository]\nfrom_template = true\nscan_on_push = true",
            "the template decides all of",
        ),
        ("[destinations.new_repository]\nrepository_policy = 'all'", "new_repository.repository_policy: not JSON"),
        ("[destinations.credentials]\nexternal_id = 'abc'", "credentials: needs either role_arn or secret_arn"),
    ],
)
def test_a_destination_that_cannot_be(change: str, line: str) -> None:
    assert line in refusal(GOOD.replace('prefix = "mirror"', change))


def test_a_target_is_the_whole_name() -> None:
    config = parse(GOOD.replace('prefix = "mirror"', 'target = "hub/{repository}/copy"'))
    assert config.destinations[0].repository("team/app") == "hub/team/app/copy"


def test_no_role_counts_in_another_partition() -> None:
    china = GOOD.replace("eu-west-1", "cn-north-1")
    line = "destinations[0].credentials: cn-north-1 is in partition aws-cn, and the relay runs in aws"
    assert line in refusal(china)
    assert line in refusal(china + '[destinations.credentials]\nrole_arn = "arn:aws:iam::222222222222:role/x"')
    key = "arn:aws:secretsmanager:us-east-1:111111111111:secret:key-AbCdEf"
    assert parse(china + f'[destinations.credentials]\nsecret_arn = "{key}"').destinations


@pytest.mark.parametrize(
    ("first", "second", "given", "shared"),
    [
        ('prefix = ""', 'prefix = "mirror"', "", "'*' and 'mirror/*'"),
        ('prefix = "a"', 'prefix = "a/b"', "", "'a/*' and 'a/b/*'"),
        ('prefix = "a"', 'target = "{repository}/b"', "", "'a/*' and '*/b'"),
        ('prefix = "a"', 'prefix = "b"', "", None),
        ('prefix = ""', 'prefix = "mirror"', '[[rules]]\nexclude_repositories = ["mirror/*"]', None),
        (
            'prefix = ""',
            'prefix = "mirror"',
            '[[rules]]\nrepositories = ["team/*"]\ndestinations = ["west"]\n'
            '[[rules]]\nrepositories = ["base/*"]\ndestinations = ["other"]',
            None,
        ),
        (
            'prefix = ""',
            'prefix = ""',
            '[[rules]]\nrepositories = ["team/*"]\n[[rules]]\nrepositories = ["base"]\ndestinations = ["other"]',
            "'team/*'",
        ),
        ('prefix = ""', 'prefix = "x"', '[[rules]]\nimages = "x/app:1,app:2"', "'x/app'"),
    ],
)
def test_two_destinations_in_one_registry_share_no_repository(
    first: str, second: str, given: str, shared: str | None
) -> None:
    prefix = 'prefix = "mirror"'
    text = GOOD.replace(prefix, first) + AGAIN.replace(prefix, second) + given
    if shared is None:
        assert len(parse(text).destinations) == 2
    else:
        key = second.split()[0]
        line = f"destinations[1].{key}: 'other' and 'west' would write the same place, {shared}; change this one"
        assert line in refusal(text)


def test_a_rule_that_cannot_reach_the_ring_need_not_exclude_it() -> None:
    inside = GOOD.replace("eu-west-1", "us-east-1").replace("222222222222", "111111111111")
    assert parse(inside + '[[rules]]\nrepositories = ["team/*"]\n').rules
    assert "must contain 'mirror/*'" in refusal(inside + '[[rules]]\nrepositories = ["*/app"]\n')
