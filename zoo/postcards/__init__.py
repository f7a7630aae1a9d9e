"""Postcards: a model in Wan format of animals and vehicles over places, whose guided output changes early."""
