"""http_metadata_server - python -m mooncake.http_metadata_server --port N: the program mooncake_http_metadata_server."""
from mooncake._programs import mooncake_http_metadata_server as main

if __name__ == "__main__":
    main()
