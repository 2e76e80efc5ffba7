"""Bitcoin addresses: to decode them, and to refuse those that no money must be sent to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from airflow_provider_quoine.exchange.errors import QuoineInputError

LONGEST_ADDRESS = 90
"""Characters of the longest Bech32 text (BIP 173); a Base58 address has at most 35."""

BECH32 = 1
BECH32M = 0x2BC830A3
"""Remainders of the checksum's polynomial: of witness version 0 (BIP 173), and of all later versions (BIP 350)."""

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CHECKSUM = 6
_BASE58_CHECKSUM = 4

_COPY = "Copy the whole address again from the person who gave it; do not correct it by hand."
_ASK = "Ask the person who gave it for another address."


class Network(StrEnum):
    """A bitcoin network that an exchange pays out on."""

    MAIN = "main"
    TEST = "test"


_PREFIXES = {"bc": Network.MAIN, "tb": Network.TEST}
_SEGWIT_STARTS = ("bc1", "tb1", "bcrt1")
# Version byte: network, and the parts before and after the hash in the output's script (P2PKH, P2SH).
_VERSIONS = {
    0x00: (Network.MAIN, b"\x76\xa9\x14", b"\x88\xac"),
    0x05: (Network.MAIN, b"\xa9\x14", b"\x87"),
    0x6F: (Network.TEST, b"\x76\xa9\x14", b"\x88\xac"),
    0xC4: (Network.TEST, b"\xa9\x14", b"\x87"),
}
_PRIVATE_KEYS = (0x80, 0xEF)
# Witness version and bytes of the program: P2WPKH, P2WSH (BIP 141), Taproot (BIP 341). All else has no rule yet.
_OWNED_PROGRAMS = {(0, 20), (0, 32), (1, 32)}


@dataclass(frozen=True, slots=True)
class BitcoinAddress:
    """
    A bitcoin address. Two of them are equal if they pay to the same output, as in upper and lower case.

    :param text: the address as it was given.
    :param network: its network. Test stands for testnet and signet; in Base58 also for regtest, which cannot be
        told from them.
    :param script: the output's scriptPubKey.
    :param owned: whether the network has a rule by which only the owner can spend what is there.
    """

    text: str = field(compare=False)
    network: Network
    script: bytes
    owned: bool

    @property
    def canonical(self) -> str:
        """The one text of all that pay to the same output: Bech32 may be written in upper case as well."""
        lower = self.text.lower()
        return lower if lower.startswith(_SEGWIT_STARTS) else self.text

    def __str__(self) -> str:
        return self.text


def check_address(address: BitcoinAddress, *, network: Network) -> None:
    """
    Refuse an address that no money must be sent to.

    Stricter than BIP 350, which has senders take every witness version from 0 to 16: of versions 2 to 16, and of
    version 1 with a program that has not 32 bytes, no rule says yet who may spend them, so the first to come could
    take the money, no wallet gives them out, and one found here is a mistake (decisions, Addresses: nothing is sent on
    a doubt).

    :param network: the network that the connection's exchange pays out on.
    :raises QuoineInputError: saying what is wrong and what to do.
    """
    if address.network != network:
        raise QuoineInputError(
            f"This is a {address.network}-network address; the connection's network is {network}. "
            f"Give a {network}-network address, or take the connection of the {address.network} network."
        )
    if not address.owned:
        raise QuoineInputError(
            "This address is well-formed, but of a kind that bitcoin has no rule for yet: anyone could take what is "
            f"sent there. {_ASK}"
        )


def decode_address(address: str) -> BitcoinAddress:
    """
    Read every address that is valid by BIP 173 and BIP 350, or by Base58Check as P2PKH or P2SH.

    :param address: of either network, without blanks around it and without ``bitcoin:`` before it.
    :raises QuoineInputError: if it is none, saying why. It does not quote the text, which could be a private key put
        into the wrong field.
    """
    if not isinstance(address, str) or not address:
        raise QuoineInputError(f"There is no address. {_COPY}")
    return _decode_segwit(address) if address.lower().startswith(_SEGWIT_STARTS) else _decode_base58(address)


def decode_bech32(text: str) -> tuple[str, list[int], int]:
    """
    Read a Bech32 or Bech32m text of any prefix (BIP 173, BIP 350).

    :param text: in lower case or in upper case.
    :return: prefix in lower case, values of 5 bits without the checksum, and :data:`BECH32` or :data:`BECH32M`.
    :raises QuoineInputError: if it is none, saying why.
    """
    _refuse_unprintable(text)
    if text not in (text.lower(), text.upper()):
        raise QuoineInputError(f"The address mixes upper and lower case. {_COPY}")
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or not prefix:
        raise QuoineInputError(f"The address has no prefix that ends with the digit 1. {_COPY}")
    if len(data) < _BECH32_CHECKSUM:
        raise QuoineInputError(f"The address is too short: its checksum is not whole. {_COPY}")
    values = _values(data, alphabet=_BASE32, before=len(prefix) + 1, form="Bech32")
    encoding = _polymod([*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix), *values])
    if encoding not in (BECH32, BECH32M):
        raise QuoineInputError(f"The address's checksum does not fit: at least one character is wrong. {_COPY}")
    return prefix, values[:-_BECH32_CHECKSUM], encoding


def _decode_segwit(text: str) -> BitcoinAddress:
    prefix, values, encoding = decode_bech32(text)
    if prefix not in _PREFIXES:
        raise QuoineInputError(
            f"The address's prefix is {prefix!r}, which is neither main ('bc') nor test ('tb'); 'bcrt' is a private "
            f"regtest chain. {_ASK}"
        )
    if not values:
        raise QuoineInputError(f"The address has no witness version and no program. {_ASK}")
    version, program = values[0], _join_bits(values[1:])
    if version > 16:
        raise QuoineInputError(f"The address's witness version is {version}; the last that there is is 16. {_ASK}")
    if len(program) not in (range(2, 41) if version else (20, 32)):
        raise QuoineInputError(
            f"The address's program has {len(program)} bytes; it has 20 or 32 in version 0, else 2 to 40. {_ASK}"
        )
    if encoding != (BECH32M if version else BECH32):
        raise QuoineInputError(
            f"The address's checksum is of the wrong kind: version 0 has Bech32, later ones Bech32m (BIP 350), and "
            f"this is version {version}. The software that made it is out of date or broken. {_ASK}"
        )
    script = bytes([version and 0x50 + version, len(program)]) + program
    return BitcoinAddress(text, _PREFIXES[prefix], script, owned=(version, len(program)) in _OWNED_PROGRAMS)


def _decode_base58(text: str) -> BitcoinAddress:
    _refuse_unprintable(text)
    number = 0
    for value in _values(text, alphabet=_BASE58, before=0, form="Base58 (it starts with neither bc1 nor tb1)"):
        number = number * len(_BASE58) + value
    # A leading 1 stands for a zero byte, which the number alone does not hold.
    zeros = len(text) - len(text.lstrip(_BASE58[0]))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
    payload, checksum = data[:-_BASE58_CHECKSUM], data[-_BASE58_CHECKSUM:]
    version, hashed = payload[:1], payload[1:]
    if sha256(sha256(payload).digest()).digest()[:_BASE58_CHECKSUM] != checksum:
        raise QuoineInputError(f"The address's checksum does not fit: at least one character is wrong. {_COPY}")
    if version and version[0] in _PRIVATE_KEYS:
        raise QuoineInputError(
            "This is a private key and no address. Everybody who can read this run's fields can now spend its coins: "
            "have its owner move them to another key, and give an address."
        )
    if len(hashed) != 20:
        raise QuoineInputError(f"The address holds {len(hashed)} bytes instead of 20. {_ASK}")
    if version[0] not in _VERSIONS:
        raise QuoineInputError(f"This is no bitcoin address: version byte {version[0]} is another coin's. {_ASK}")
    network, before, after = _VERSIONS[version[0]]
    return BitcoinAddress(text, network, before + hashed + after, owned=True)


def _refuse_unprintable(text: str) -> None:
    # Before anything changes case: the Kelvin sign, say, would become an innocent k.
    for place, char in enumerate(text, start=1):
        if not "!" <= char <= "~":
            raise QuoineInputError(f"Character {place} of the address, {char!a}, is in no address. {_COPY}")
    if len(text) > LONGEST_ADDRESS:
        raise QuoineInputError(f"The address has {len(text)} characters; none has over {LONGEST_ADDRESS}. {_COPY}")


def _values(text: str, *, alphabet: str, before: int, form: str) -> list[int]:
    for place, char in enumerate(text, start=before + 1):
        if char not in alphabet:
            raise QuoineInputError(f"Character {place} of the address, {char!r}, is none of {form}. {_COPY}")
    return [alphabet.index(char) for char in text]


def _polymod(values: Iterable[int]) -> int:
    remainder = 1
    for value in values:
        top, remainder = remainder >> 25, (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            remainder ^= generator if top >> bit & 1 else 0
    return remainder


def _join_bits(groups: list[int]) -> bytes:
    number = 0
    for group in groups:
        number = number << 5 | group
    length, padding = divmod(5 * len(groups), 8)
    if padding > 4 or number & (1 << padding) - 1:
        raise QuoineInputError(f"The address's program does not end at a whole byte: its padding is wrong. {_ASK}")
    return (number >> padding).to_bytes(length)
