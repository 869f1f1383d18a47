"""`make chaos`: processes of one gateway are killed at random under load; and whether anybody got anything but what is promised."""
