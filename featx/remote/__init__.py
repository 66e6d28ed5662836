"""Videos and feature files in stores such as S3, behind fsspec: what addresses mean, listing, fetching and writing whole files.

addresses.py   which addresses there are, and what of one may be written down
system.py      the only importer of fsspec: an address -> a file system that knows its own credentials
listing.py     the videos below an address, page by page
transfer.py    one file from or to a store, whole or not at all
"""

from featx.remote.addresses import (
    SCHEMES,
    address_name,
    is_address,
    is_http,
    public_address,
    public_text,
    quoted,
    require_address,
    require_no_address,
)
from featx.remote.listing import Listed, names_folder, videos_below
from featx.remote.system import Found, Store, has_settings, open_store, reason_of
from featx.remote.transfer import Stop, fetch, own_disk_error, put

__all__ = [
    "SCHEMES",
    "Found",
    "Listed",
    "Stop",
    "Store",
    "address_name",
    "fetch",
    "has_settings",
    "is_address",
    "is_http",
    "names_folder",
    "open_store",
    "own_disk_error",
    "public_address",
    "public_text",
    "put",
    "quoted",
    "reason_of",
    "require_address",
    "require_no_address",
    "videos_below",
]
