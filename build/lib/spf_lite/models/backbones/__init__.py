"""The supported classes of models, each behind one interface."""
