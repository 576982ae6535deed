"""API keys, their scopes and quotas: who may call which route, and how often. Without a keys file all but the admin
routes are open.
"""
