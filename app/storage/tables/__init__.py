"""The tables, as SQLModel classes. Every key begins with ``tenant_id``.

No foreign keys lead out of ``deliveries``: they cost 1.9 times the insert and turn a destination
that is deleted meanwhile into a failed chunk (design 2.2).

Each process imports those it needs: a model class takes some 200 KB of memory.
"""
