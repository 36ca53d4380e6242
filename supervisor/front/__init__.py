"""The sockets of clients and watchers: what arrives, what leaves, who vanished."""
