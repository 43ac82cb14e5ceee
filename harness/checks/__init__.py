"""Checks: is it the same network, and does a backend keep its promises?"""
