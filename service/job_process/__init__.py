"""Jobs in processes of their own: of low priority, the first to go when memory ends, and stopped by ending them."""
