"""Settings: who wins, what an image may say, and messages that name key and origin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfs_core.config.advice import image_advice
from cfs_core.config.keys import BY_NAME, KEYS, Kind
from cfs_core.config.settings import FILE_LIMIT, Rank, Settings, layer_from_table, load, options_layer
from cfs_core.config.values import from_text, parse_size
from cfs_core.errors import ConfigError
from cfs_core.model.content import BytesContent


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Image:
    """The few files of an image that advice is read from."""

    def __init__(self, files):
        self.files = files

    def names(self, path):
        return tuple(sorted(n.rpartition("/")[2] for n in self.files if n.rpartition("/")[0] == path))

    def read(self, path, *, limit=1 << 24):
        return self.files.get(path)

    def content(self, path):
        return BytesContent(self.files[path]) if path in self.files else None


def words(rank):
    return rank.name.lower().replace("_", " ")


def test_every_origin_wins_over_the_ones_below(tmp_path):
    file = write(tmp_path / "given.toml", '[install]\nfilesystem = "file"')
    write(tmp_path / "usr/lib/cfs/cfs.toml", '[install]\nfilesystem = "vendor"')
    write(tmp_path / "etc/cfs/cfs.toml.d/10.toml", '[install]\nfilesystem = "etc"')
    write(tmp_path / "home/cfs/cfs.toml", '[install]\nfilesystem = "user"')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "home"), "CFS_INSTALL_FILESYSTEM": "environment"}
    settings = load(environ, file=file, root=tmp_path)
    advice = image_advice(Image({"/usr/lib/cfs/install.d/1.toml": b'install.filesystem = "image"'}))
    for layer in (*advice, options_layer({"install.filesystem": "command line"})):
        settings = settings.with_layer(layer)
    assert [s.value for s in settings.every("install.filesystem")] == [
        rank.name.lower().replace("_", " ") for rank in list(Rank)[1:]
    ]
    while settings.layers:
        winner = settings.get("install.filesystem")
        assert winner.value == settings.layers[-1].values["install.filesystem"]
        assert winner.origin == settings.layers[-1].origin
        settings = Settings(settings.layers[:-1])
    assert settings.get("install.filesystem").value == "ext4"
    assert settings.get("install.filesystem").origin == "default"


def test_drop_ins_merge_and_mask_as_systemds_do(tmp_path):
    write(tmp_path / "usr/lib/cfs/cfs.toml", 'repo = "/vendor"')
    write(tmp_path / "usr/lib/cfs/cfs.toml.d/20.toml", 'install.layout = "twenty"')
    write(tmp_path / "usr/lib/cfs/cfs.toml.d/30.toml", 'install.layout = "thirty"')
    write(tmp_path / "usr/lib/cfs/cfs.toml.d/40.conf", "not read")
    settings = load({}, root=tmp_path)
    assert settings.value("install.layout") == "thirty"
    write(tmp_path / "etc/cfs/cfs.toml.d/30.toml", "")
    assert load({}, root=tmp_path).value("install.layout") == "twenty"
    write(tmp_path / "etc/cfs/cfs.toml.d/20.toml", 'install.layout = "mine"')
    settings = load({}, root=tmp_path)
    assert settings.value("install.layout") == "mine"
    assert settings.get("install.layout").origin == str(tmp_path / "etc/cfs/cfs.toml.d/20.toml")
    assert settings.value("repo") == "/vendor"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense = 1", "nonsense in"),
        ("[install]\ncolour = 'red'", "install.colour in"),
        ("install.filesystem = 7", "install.filesystem in .* must be a string, not 7"),
        ("install.kargs = 'quiet'", "must be a list of strings"),
        ("install.kargs = ['quiet', 1]", "must be a list of strings"),
        ("install.host-tools = 'yes'", "must be true or false"),
        ("install.timeout = true", "must be a whole number"),
        ("install.root-size = 'huge'", "'huge' of install.root-size in .* is not a size"),
        ("install.root-size = true", "must be a size"),
        ("transport = 'x'", "must be a table"),
        ("install = 3", "install in .* is not a setting"),
        ("not toml", "not valid TOML"),
    ],
)
def test_a_fault_in_a_file_of_the_operator_names_key_and_file(tmp_path, text, said):
    path = write(tmp_path / "etc/cfs/cfs.toml", text)
    with pytest.raises(ConfigError, match=said) as caught:
        load({}, root=tmp_path)
    assert str(path) in caught.value.message or "size" in said


def test_unreadable_and_endless_files_are_config_errors(tmp_path):
    path = tmp_path / "etc/cfs/cfs.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load({}, root=tmp_path)
    path.write_bytes(b"#" * (FILE_LIMIT + 1))
    with pytest.raises(ConfigError, match="longer than"):
        load({}, root=tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load({}, file=tmp_path / "none.toml", root=tmp_path / "empty")


def test_vendor_and_image_files_only_warn_about_what_they_may_not_say(tmp_path):
    write(tmp_path / "usr/lib/cfs/cfs.toml", "new-in-version-9 = 1")
    (warning,) = load({}, root=tmp_path).warnings
    assert "new-in-version-9" in warning
    assert "ignored" in warning


@pytest.mark.parametrize("key", [key.name for key in KEYS if not key.image])
def test_an_image_cannot_set_what_is_the_operators(key):
    layer = layer_from_table(_nested(key, "x"), "image:/x.toml", Rank.IMAGE)
    assert layer.values == {}
    assert "cannot be set by an image" in layer.warnings[0]


def _nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def test_the_operators_own_keys_are_the_dangerous_ones():
    forbidden = {"repo", "plugins.disabled", "policy.require", "policy.settings", "transport", "install.host-tools"}
    assert forbidden <= {key.name for key in KEYS if not key.image}


def test_bootcs_files_are_advice_too():
    text = b"""
[install]
kargs = ["quiet", "console=ttyS0"]
bootloader = "grub"
block = ["tpm2-luks"]
[install.filesystem.root]
type = "xfs"
[install.ostree]
bls-append-except-default = "x"
"""
    (layer,) = image_advice(Image({"/usr/lib/bootc/install/00-a.toml": text, "/usr/lib/bootc/install/README": b"x"}))
    assert layer.values == {
        "install.kargs": ("quiet", "console=ttyS0"),
        "install.bootloader": "grub",
        "install.filesystem": "xfs",
    }
    assert [warning.partition(" in ")[0] for warning in layer.warnings] == [
        "install.block",
        "install.ostree.bls-append-except-default",
    ]
    (layer,) = image_advice(Image({"/usr/lib/bootc/install/00-a.toml": b'[install]\nroot-fs-type = "ext4"'}))
    assert layer.values == {"install.filesystem": "ext4"}


def advised(files, architecture="amd64"):
    settings = Settings()
    for layer in image_advice(Image({name: text.encode() for name, text in files.items()}), architecture):
        settings = settings.with_layer(layer)
    return settings


def test_bootc_fragments_come_from_three_folders_in_the_order_of_their_names():
    found = advised(
        {
            "/usr/lib/bootc/install/00-a.toml": '[install]\nkargs = ["hidden"]',
            "/etc/bootc/install/00-a.toml": '[install]\nkargs = ["etc"]\nbootloader = "grub"',
            "/usr/local/lib/bootc/install/20-b.toml": "[install]\nkargs = ['local']\nbootloader = 'systemd'",
            "/usr/lib/bootc/install/10-c.toml": "[install]\nkargs = ['usr']\nkarg-deletes = ['quiet']",
            "/usr/lib/bootc/install/.hidden.toml": "[install]\nkargs = ['dot']",
            "/usr/lib/bootc/install/30-mask.toml": "[install]\nkargs = ['masked']",
            "/etc/bootc/install/30-mask.toml": "",
        }
    )
    assert [setting.value for setting in found.every("install.kargs")] == [("etc",), ("usr",), ("local",)]
    assert (found.value("install.bootloader"), found.value("install.karg-deletes")) == ("systemd", ("quiet",))
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("wanted", "architecture", "taken"),
    [
        ("aarch64", "amd64", False),
        ("aarch64", "arm64", True),
        ("arm64", "arm64", True),
        ("x86_64", "amd64", True),
        ("x86", "386", True),
    ],
)
def test_a_fragment_may_be_for_some_architectures(wanted, architecture, taken):
    text = f'[install]\nmatch-architectures = ["s390x", "{wanted}"]\nkargs = ["x"]\n'
    found = advised({"/usr/lib/bootc/install/a.toml": text}, architecture)
    assert (found.value("install.kargs") == ("x",)) is taken


def test_keys_of_bootc_are_used_or_told():
    text = """
other = 1
[install]
block = ["direct", "tpm2-luks"]
stateroot = "x"
root-mount-spec = "LABEL=x"
boot-mount-spec = ""
colour = "blue"
discoverable-partitions = true
[install.bootupd]
skip-boot-uuid = true
[install.filesystem.home]
type = "xfs"
[install.filesystem.root]
type = "btrfs"
"""
    found = advised({"/usr/lib/bootc/install/a.toml": text})
    assert found.value("install.filesystem") == "btrfs"
    assert [warning.partition(" in image:")[0] for warning in found.warnings] == [
        "other",
        "install.stateroot",
        "install.root-mount-spec",
        "install.boot-mount-spec",
        "install.colour",
        "install.bootupd.skip-boot-uuid",
        "install.filesystem.home.type",
    ]


@pytest.mark.parametrize(
    "text",
    [
        'install = ["a"]',
        '[install]\nkargs = "a"',
        "[install]\nbootloader = 3",
        "[install]\nblock = true",
        "[install]\nmatch-architectures = 'x86_64'",
        "[install.filesystem.root]\ntype = 4",
        "[install]\nfilesystem.root = 'ext4'\nroot-fs-type = 1",
    ],
)
def test_what_is_of_another_type_is_refused(text):
    with pytest.raises(ConfigError, match="must be"):
        advised({"/usr/lib/bootc/install/a.toml": text})


def test_a_file_in_the_place_of_a_directory_is_refused():
    with pytest.raises(ConfigError, match="/etc/bootc/install of the image is a file"):
        advised({"/etc/bootc/install": "[install]"})


def test_advice_of_the_wrong_type_names_the_file():
    with pytest.raises(ConfigError, match=r"install.kargs in image:/usr/lib/cfs/install.d/1.toml"):
        image_advice(Image({"/usr/lib/cfs/install.d/1.toml": b"install.kargs = 3"}))


def test_lists_add_up_and_tables_merge():
    one = layer_from_table({"transport": {"registry": {"a": 1, "b": 1}}, "install": {"kargs": ["x"]}}, "one", Rank.ETC)
    two = layer_from_table(
        {"transport": {"registry": {"b": 2}, "other": 3}, "install": {"kargs": ["y"]}}, "two", Rank.USER
    )
    settings = Settings().with_layer(two).with_layer(one)
    assert settings.section("transport", "registry") == {"a": 1, "b": 2}
    assert settings.section("transport", "o") == {}
    assert [(s.value, s.origin) for s in settings.every("install.kargs")] == [(("x",), "one"), (("y",), "two")]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("CFS_INSTALL_KARGS", "a, b=c ,", ("a", "b=c")),
        ("CFS_INSTALL_ROOT_SIZE", "10G", 10 << 30),
        ("CFS_INSTALL_HOST_TOOLS", "off", False),
        ("CFS_INSTALL_TIMEOUT", "3", 3),
        ("CFS_DISABLE_PLUGINS", "a,b", ("a", "b")),
        ("CFS_PLUGINS_DISABLED", "a,b", ("a", "b")),
    ],
)
def test_the_environment_speaks_text(tmp_path, name, text, value):
    (layer,) = [layer for layer in load({name: text}, root=tmp_path).layers if layer.origin == "environment"]
    assert list(layer.values.values()) == [value]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CFS_INSTALL_HOST_TOOLS", "perhaps"),
        ("CFS_INSTALL_TIMEOUT", "-1"),
        ("CFS_INSTALL_TIMEOUT", "²"),
        ("CFS_INSTALL_ROOT_SIZE", "1.5G"),
    ],
)
def test_wrong_text_in_the_environment_names_the_variable(tmp_path, name, text):
    with pytest.raises(ConfigError) as caught:
        load({name: text}, root=tmp_path)
    assert name in caught.value.message or repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "size"),
    [("8192T", 1 << 53), (512, 512), ("1k", 1024), ("1 KiB", 1024), ("2MB", 2 << 20), ("3g", 3 << 30), ("1T", 1 << 40)],
)
def test_sizes_are_binary(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5G", "G", "1P", "0x10", "1G1", "²", "٣G", "0", "8193T", "9" * 5000])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError):
        parse_size(text)


@pytest.mark.parametrize("text", ["²", "9" * 5000])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ConfigError):
        from_text(BY_NAME["install.timeout"], text, "test")


@given(st.text(), st.sampled_from(KEYS))
def test_no_text_breaks_the_reader(text, key):
    try:
        value = from_text(key, text, "X")
    except ConfigError:
        return
    assert key.kind is not Kind.TABLE
    assert value is not None


def test_every_key_has_a_summary_and_a_default_of_its_kind():
    for key in KEYS:
        assert key.summary[0].islower() or key.summary.startswith("EROFS")
        assert not key.summary.endswith(".")
    assert len(BY_NAME) == len(KEYS)
