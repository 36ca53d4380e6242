"""The slots: their lifecycle, the processes that fill them, and the watch over these."""
