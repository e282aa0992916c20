"""``minilog lost``: records that brokers have cut from the ends of their logs. Begin in lost.py."""
