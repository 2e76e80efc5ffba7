"""Bitcoin addresses: every vector of BIP 173, BIP 350 and Bitcoin Core's key_io, and what no money must go to."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.addresses import (
    BECH32,
    BECH32M,
    BitcoinAddress,
    Network,
    check_address,
    decode_address,
    decode_bech32,
)
from airflow_provider_quoine.exchange.errors import QuoineInputError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "address_vectors.json").read_text(encoding="utf-8"))
BIP173, BIP350, CORE = VECTORS["bip173"], VECTORS["bip350"], VECTORS["core"]
SAMPLE = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
SEGWIT_ADDRESSES = BIP173["valid_address"] + BIP350["valid_address"]
OWNED_LENGTHS = {(b"\x00", 22), (b"\x00", 34), (b"\x51", 34)}


def is_owned(script: bytes) -> bool:
    return script[:1] in (b"\x76", b"\xa9") or (script[:1], len(script)) in OWNED_LENGTHS


ALL_VALID = [(Network(chain), text, script) for chain, text, script in CORE["valid_address"]] + [
    (Network.MAIN if text.lower().startswith("bc") else Network.TEST, text, script) for text, script in SEGWIT_ADDRESSES
]
PAYABLE = [(network, text) for network, text, script in ALL_VALID if is_owned(bytes.fromhex(script))]
NOT_PAYABLE = [(network, text) for network, text, script in ALL_VALID if not is_owned(bytes.fromhex(script))]


def write_base58(payload: bytes) -> str:
    data = payload + sha256(sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(data), ""
    while number:
        number, value = divmod(number, 58)
        text = BASE58[value] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def write_segwit(prefix: str, version: int, program: bytes, *, encoding: int | None = None) -> str:
    bits = "".join(f"{byte:08b}" for byte in program)
    bits += "0" * (-len(bits) % 5)
    values = [version] + [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    remainder = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *values, 0, 0, 0, 0, 0, 0]:
        top, remainder = remainder >> 25, (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            remainder ^= term * (top >> bit & 1)
    remainder ^= encoding or (BECH32M if version else BECH32)
    checksum = [remainder >> 5 * (5 - at) & 31 for at in range(6)]
    return prefix + "1" + "".join(BASE32[value] for value in values + checksum)


@pytest.mark.parametrize(("bip", "encoding"), [(BIP173, BECH32), (BIP350, BECH32M)], ids=["173", "350"])
def test_every_text_with_a_checksum_of_the_bips_is_read(bip: dict[str, Any], encoding: int) -> None:
    for text in bip["valid_text"]:
        prefix, values, found = decode_bech32(text)
        assert found == encoding
        written = prefix + "1" + "".join(BASE32[value] for value in values)
        assert written == text.lower()[:-6]


@pytest.mark.parametrize(("text", "why"), BIP173["invalid_text"] + BIP350["invalid_text"])
def test_every_invalid_text_of_the_bips_is_refused_for_its_reason(text: str, why: str) -> None:
    with pytest.raises(QuoineInputError) as refusal:
        decode_bech32(text)
    assert why in str(refusal.value)


@pytest.mark.parametrize(("network", "text", "script"), ALL_VALID)
def test_every_valid_address_gives_its_script_and_network(network: Network, text: str, script: str) -> None:
    expected = bytes.fromhex(script)
    assert decode_address(text) == BitcoinAddress(text=text, network=network, script=expected, owned=is_owned(expected))


@pytest.mark.parametrize("text", [text for _, text, _ in ALL_VALID if text.lower().startswith(("bc1", "tb1"))])
def test_upper_and_lower_case_of_a_segwit_address_are_the_same_address(text: str) -> None:
    assert decode_address(text.upper()) == decode_address(text.lower())


@pytest.mark.parametrize(("text", "why"), BIP173["invalid_address"] + BIP350["invalid_address"])
def test_every_invalid_address_of_the_bips_is_refused_for_its_reason(text: str, why: str) -> None:
    with pytest.raises(QuoineInputError) as refusal:
        decode_address(text)
    assert why in str(refusal.value)


@pytest.mark.parametrize("text", BIP173["superseded_address"])
def test_a_later_version_with_the_checksum_of_bip_173_is_refused_as_bip_350_says(text: str) -> None:
    with pytest.raises(QuoineInputError, match="checksum is of the wrong kind"):
        decode_address(text)


@pytest.mark.parametrize("text", CORE["invalid_address"])
def test_every_invalid_address_of_bitcoin_core_is_refused(text: str) -> None:
    with pytest.raises(QuoineInputError):
        decode_address(text)


@pytest.mark.parametrize("text", CORE["regtest_address"])
def test_a_regtest_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(QuoineInputError, match=r"prefix is 'bcrt', which is neither main .* regtest chain"):
        decode_address(text)


@pytest.mark.parametrize("text", CORE["private_key"])
def test_a_private_key_is_called_one_and_not_repeated(text: str) -> None:
    with pytest.raises(QuoineInputError, match="private key") as refusal:
        check_address(decode_address(text), network=Network.MAIN)
    assert text not in str(refusal.value)


@pytest.mark.parametrize(("network", "text"), PAYABLE)
def test_money_may_go_to_an_address_of_its_network_only(network: Network, text: str) -> None:
    check_address(decode_address(text), network=network)
    other = Network.TEST if network is Network.MAIN else Network.MAIN
    with pytest.raises(QuoineInputError, match=f"is a {network}-network address; the connection's network is {other}"):
        check_address(decode_address(text), network=other)


@pytest.mark.parametrize(("network", "text"), NOT_PAYABLE)
def test_no_money_may_go_where_anyone_could_take_it(network: Network, text: str) -> None:
    with pytest.raises(QuoineInputError, match="anyone could take"):
        check_address(decode_address(text), network=network)


def test_the_sample_address_of_the_reference_is_a_real_one_of_the_main_network() -> None:
    check_address(decode_address(SAMPLE), network=Network.MAIN)
    assert decode_address(SAMPLE).script.hex() == "76a91464f05cc21128bb2f64574da2adb06d3b546a3be288ac"


def test_the_network_may_come_as_the_text_that_a_connection_holds() -> None:
    check_address(decode_address(SAMPLE), network="main")  # type: ignore[arg-type]  # text on purpose
    with pytest.raises(QuoineInputError, match="the connection's network is test"):
        check_address(decode_address(SAMPLE), network="test")  # type: ignore[arg-type]  # text on purpose


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "There is no address"),
        (None, "There is no address"),
        (f" {SAMPLE}", "Character 1 of the address, ' ', is in no address"),
        (f"{SAMPLE}\n", r"Character 35 of the address, '\n', is in no address"),
        (f"bitcoin:{SAMPLE}", "Character 8 of the address, ':', is none of Base58"),
        (SAMPLE.replace("o", "0"), "Character 29 of the address, '0', is none of Base58"),
        (SAMPLE.replace("a", "\u0430"), r"Character 8 of the address, '\u0430', is in no address"),
        (SAMPLE[:-1], "checksum does not fit"),
        (f"1{SAMPLE}", "checksum does not fit"),
        (SAMPLE[1:], "checksum does not fit"),
        ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7\u212aV8F3T4", r"'\u212a', is in no address"),
        ("1" * 91, "91 characters"),
        ("3QJmnh", "holds 0 bytes"),
        (write_base58(bytes(20)), "holds 19 bytes"),
        (write_base58(bytes(22)), "holds 21 bytes"),
        (write_base58(bytes([48]) + bytes(20)), "version byte 48 is another coin's"),
        (write_segwit("bc", 0, bytes(20), encoding=BECH32M), "checksum is of the wrong kind"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: Any, why: str) -> None:
    with pytest.raises(QuoineInputError) as refusal:
        check_address(decode_address(text), network=Network.MAIN)
    assert why in str(refusal.value)


ANY_PAYABLE = st.sampled_from(PAYABLE) | st.just((Network.MAIN, SAMPLE))
ADDRESS_CHARACTERS = st.sampled_from(sorted({*BASE58, *BASE32, *BASE32.upper()}))


@given(ANY_PAYABLE, st.data(), ADDRESS_CHARACTERS | st.characters())
def test_one_changed_character_is_always_found(case: tuple[Network, str], data: st.DataObject, character: str) -> None:
    network, text = case
    place = data.draw(st.integers(0, len(text) - 1))
    assume(text[place] != character)
    with pytest.raises(QuoineInputError):
        check_address(decode_address(text[:place] + character + text[place + 1 :]), network=network)


@pytest.mark.long
def test_no_change_of_one_address_character_at_any_place_gets_through() -> None:
    for text in (SAMPLE, "3BZECeAH8gSKkjrTx8PwMrNQBLG18yHpvf", *(text for text, _ in SEGWIT_ADDRESSES)):
        for place in range(len(text)):
            for character in {*BASE58, *BASE32, *BASE32.upper()} - {text[place]}:
                with pytest.raises(QuoineInputError):
                    decode_address(text[:place] + character + text[place + 1 :])


@given(ANY_PAYABLE, st.data())
def test_two_neighbours_exchanged_are_always_found(case: tuple[Network, str], data: st.DataObject) -> None:
    network, text = case
    place = data.draw(st.integers(0, len(text) - 2))
    assume(text[place] != text[place + 1])
    with pytest.raises(QuoineInputError):
        check_address(decode_address(text[:place] + text[place + 1] + text[place] + text[place + 2 :]), network=network)


@given(
    st.sampled_from([(0x00, "main", "76a914", "88ac"), (0x05, "main", "a914", "87")])
    | st.sampled_from([(0x6F, "test", "76a914", "88ac"), (0xC4, "test", "a914", "87")]),
    st.binary(min_size=20, max_size=20) | st.integers(0, 20).map(lambda zeros: bytes(zeros) + b"\xff" * (20 - zeros)),
)
def test_every_hash_in_base58_comes_back(kind: tuple[int, str, str, str], hashed: bytes) -> None:
    version, network, before, after = kind
    text = write_base58(bytes([version]) + hashed)
    script = bytes.fromhex(before + hashed.hex() + after)
    assert decode_address(text) == BitcoinAddress(text=text, network=Network(network), script=script, owned=True)


@given(st.sampled_from(["bc", "tb"]), st.integers(0, 31), st.binary(max_size=44))
def test_every_witness_program_that_bip_350_allows_comes_back_and_no_other(
    prefix: str, version: int, program: bytes
) -> None:
    text = write_segwit(prefix, version, program)
    if version > 16 or len(program) not in (range(2, 41) if version else (20, 32)):
        with pytest.raises(QuoineInputError):
            decode_address(text)
        return
    found = decode_address(text)
    assert found.script == bytes([0x50 + version if version else 0, len(program)]) + program
    assert found.network == {"bc": Network.MAIN, "tb": Network.TEST}[prefix]


@given(st.text() | st.text(alphabet=BASE58) | st.text(alphabet=BASE32 + "1b").map("bc1".__add__))
def test_no_text_at_all_ends_in_anything_but_an_address_or_a_refusal(text: str) -> None:
    with suppress(QuoineInputError):
        decode_address(text)
