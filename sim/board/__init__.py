"""A virtual board: PYNQ's remote protocol with simulated RTL behind it; and the client side for deploying."""
